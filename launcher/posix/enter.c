/*
 * From fork to execve, with what every POSIX system has. Nothing here allocates memory, and only what signal-safety(7) lists
 * is called. Each step does its work or dies.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the monitor ignores would be ignored by the command (execve(2)); it blocks none. SIGKILL and SIGSTOP refuse, and need no reset. */
static void default_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigemptyset(&action.sa_mask);
	for (int number = 1; number < NSIG; number++)
		sigaction(number, &action, NULL);
}

/*
 * First above every target, then down: so no target is overwritten before it is copied. Whatever else is open here is
 * close-on-exec: the monitor was started with nothing but its channel and these (main.c).
 */
static void arrange_descriptors(const struct plan *plan, int *descriptors, int told, struct record *record)
{
	int high = 3;
	for (size_t i = 0; i < plan->n_targets; i++)
		if (plan->targets[i] >= high)
			high = plan->targets[i] + 1;
	for (size_t i = 0; i < plan->n_targets; i++) {
		descriptors[i] = fcntl(descriptors[i], F_DUPFD_CLOEXEC, high);
		if (descriptors[i] < 0) {
			errno = errno == EINVAL ? EMFILE : errno; /* EINVAL: above RLIMIT_NOFILE */
			die(record, "descriptors", "RLIMIT_NOFILE of the monitor");
		}
	}
	/* By the end of this one the monitor hears of execve(2): it must not come before, when a target takes its number. */
	if (told >= 0 && fcntl(told, F_DUPFD_CLOEXEC, high) < 0)
		die(record, "descriptors", "RLIMIT_NOFILE of the monitor");
	for (size_t i = 0; i < plan->n_targets; i++)
		if (dup2(descriptors[i], plan->targets[i]) < 0)
			die(record, "descriptors", "");
}

noreturn void enter(const struct plan *plan, int *descriptors, int told, struct record *record)
{
	if (setsid() < 0) /* its own session and process group, by which it is ended; and no controlling terminal */
		die(record, "setsid", "");
	default_signals();
	arrange_descriptors(plan, descriptors, told, record);
	if (plan->terminal && ioctl(0, TIOCSCTTY, 0) < 0) /* of the new session */
		die(record, "terminal", "");
	umask(plan->start.umask);
	add_niceness(plan->nice, record);
	if (chdir(plan->start.cwd ? plan->start.cwd : "/") < 0)
		die(record, "chdir", plan->start.cwd);
	set_rlimits(&plan->start, record); /* last: RLIMIT_NOFILE would bind the steps above */
	record->started = now();
	execve(plan->command.path, plan->command.argv, plan->start.envp);
	die(record, "exec", plan->command.path);
}
