/* What the files of the portable monitor share: one process for one run. */
#ifndef MONITOR_H
#define MONITOR_H

#include "../launcher.h"

enum {
	ORDER_MONITOR_KILL = 'k', /* end the run's process group */
	ORDER_MONITOR_REAP = 'r', /* whoever else there was is gone: let go of the command's process id, and say what it was */
	ORDER_MONITOR_TERMINATE = 't', /* end the command gently: SIGTERM now, the group's SIGKILL after the plan's grace */
	LAST_SIGNAL = 64,         /* 1 to this: send that signal to the command */
};

/* enter.c */
noreturn void enter(const struct plan *plan, int *descriptors, int told, struct record *record);

/* run.c */
int watch_over(const struct plan *plan, int *descriptors, int channel, struct message *message);
void tell_warden(int channel, const struct message *message);
void describe_failure(struct message *message, const char *step, const char *object, int error);

#endif
