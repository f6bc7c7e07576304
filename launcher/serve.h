/* What the three files of the event loop share: serve.c starts runs and hears, watch.c looks after them, run.c ends them. */
#ifndef SERVE_H
#define SERVE_H

#include "launcher.h"

#include <sys/resource.h>

enum source_kind { CONTROL, CALLER, SOCKET_, REAPER, OOM, SAMPLES };
struct source { enum source_kind kind; struct run *run; };

struct run {
	struct run *next;
	struct source socket_source, reaper_source, oom_source;
	int socket, pidfd;
	pid_t reaper;
	unsigned slot;       /* of the shared records */
	struct cage *cage;
	int64_t born, deadline, cpu_limit, next_look, interval;
	int64_t last_chance; /* when a reaper that was ordered to end its run is not waited for any longer; 0: not ordered */
	bool wants_looks;    /* its cgroup keeps no peak of memory */
	struct watch watch;  /* where no cgroup measures */
	int64_t cpu_permille, task_limit; /* sampled */
	enum reach reach;
	int64_t cpu_seen;
	int64_t allowance, last_look; /* of the sampled CPU limit: ns that may still be used */
	bool sampling, stopped, killed, ending; /* ending: its reaper is dead and has left processes to us */
	int reaper_status;
	struct rusage usage;
	bool timed_out, cpu_exceeded, memory_exceeded, tasks_exceeded, cancelled;
	int peak_tasks;
};

extern struct server {
	int epoll, alive[2];
	struct record *records;
	bool taken[MAX_RUNS];
	struct run *runs, *leaving; /* leaving: ended, but the sampler still looks */
	struct source control, caller, samples;
	char words[MAX_MESSAGE];
} server;

enum { SWEEP_INTERVAL = 2000000 }; /* ns between two looks at strays: what is killed hands its children on to us */

/* run.c */
void tell_failure(int socket, const char *step, const char *object, int error);
int watch_fd(int fd, struct source *source);
void unwatch(int fd);
void give_order(const struct run *run, enum order order);
void kill_run(struct run *run);
bool is_reaper(pid_t pid);
void end_run(struct run *run, bool wait);
void finish(struct run *run);
void release(struct run *run);

/* watch.c */
int watch_samples(void);
void set_limits(const struct plan *plan, const struct resources *resources, struct run *run);
int wait_milliseconds(void);
void look_at_all(void);
void on_samples(void);

#endif
