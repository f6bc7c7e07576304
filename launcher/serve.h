/*
 * What the files of the event loop share: serve.c is that, channel.c hears Python, start.c starts runs, plans.c keeps what their words
 * said, prepare.c makes sandboxes ahead, watch.c looks after runs, run.c ends them.
 */
#ifndef SERVE_H
#define SERVE_H

#include "launcher.h"

enum source_kind { CONTROL, CALLER, CHANNEL, REAPER, OOM, SAMPLES, ENDS, MOUNTS, PARKED };
struct source { enum source_kind kind; union { struct run *run; struct channel *channel; }; };

/* A socket on which Python says what it wants of a run, and hears what becomes of it. */
struct channel {
	struct source source;
	int socket;
	struct run *run; /* NULL: it waits for the next one */
	bool gone;       /* nobody is at the other end */
};

/* A plan that was read once, and what is known of how it is used. */
struct kept {
	struct kept *next;
	struct plan plan;      /* borrows from words and variables */
	char *words;           /* as they came, all before the command */
	size_t size;
	char **variables;
	bool preparable;
	int64_t last_use;
	bool repeated;         /* runs of it follow one another */
	int64_t retry;         /* nothing is prepared before: the last one failed */
	int prepared;          /* sandboxes that wait */
};

struct run {
	struct run *next;
	struct kept *kept;     /* whose next run it is prepared for; NULL: it is under way */
	int command;           /* a prepared one's ear */
	bool parked;           /* it waits, and has used all that preparing it takes */
	struct origins *origins; /* of its own mounts, where it is prepared */
	struct source reaper_source, oom_source, parked_source;
	struct channel *channel; /* NULL: of a prepared one, and when it was told of */
	int pidfd;
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
	bool announced, paused; /* for who holds a handle to it */
	long question; /* the last of what is used, 0 when it was answered */
	int looks; /* samples to be taken before that is done */
	uint64_t sent;       /* signals that its caller has sent to the command: bit N - 1 for signal N */
	int64_t grace, terminated, grace_end; /* ns from SIGTERM to SIGKILL; when the one was sent and the other will be, 0: not */
	bool sampling, stopped, killed, ending; /* ending: its reaper is dead and has left processes to us */
	bool told;           /* everybody knows how it ended; its reaper has yet to end */
	bool was_prepared;
	int64_t dismissal;   /* when its reaper is told to end; 0: it was, or need not be */
	int reaper_status;
	int64_t user, system, max_rss; /* of its end, as wait4(2) or its record tells */
	uint32_t host_uid;
	bool timed_out, cpu_exceeded, memory_exceeded, tasks_exceeded, cancelled;
	int peak_tasks;
};

/* In whole pages of its own: see memory.c. */
extern struct server {
	_Alignas(4096) int epoll;
	int ends, mounts;
	struct record *records;
	bool taken[MAX_RUNS];
	struct run *runs, *leaving; /* leaving: ended, but the sampler still looks */
	struct source control, caller, samples, ended, changed;
	struct message message; /* the one that is being put together */
} server;

/* What a run's first processes need until the command is executed, and then let go: in whole pages of its own too. */
enum { LENT_ARGUMENTS = 256 }; /* a command of more words is worth an allocation */
extern struct lent {
	_Alignas(4096) char words[MAX_MESSAGE]; /* the last message from Python */
	char *arguments[LENT_ARGUMENTS];
	struct resources resources;
} lent;

enum { SWEEP_INTERVAL = 2000000 }; /* ns between two looks at strays: what is killed hands its children on to us */

/* plans.c */
struct kept *keep_plan(const char *words, size_t size, const char **why);
void forget_if_large(struct kept *kept);
struct kept *each_plan(struct kept *last);

/* start.c */
struct fault { const char *step, *object; int error; };
struct run *spawn_run(const struct plan *plan, const int *descriptors, int command, struct fault *fault);
void launch(const char *words, size_t size, struct channel *channel, const int *descriptors, size_t count);

/* prepare.c */
bool can_be_prepared(const struct plan *plan);
struct run *use_prepared(struct kept *kept, const char *words, size_t size, const int *descriptors, size_t count);
void note_event(void);
void note_use(struct kept *kept);
void prepare_next(void);
void on_parked(struct run *run);
void on_prepared_end(struct run *run);
void drop_prepared(struct kept *kept);
void drop_all_prepared(void);
void drop_idle(int64_t time);
int64_t next_look_at_prepared(void);

/* serve.c */
void check_mounts(void);

/* channel.c */
struct channel *open_channel(int socket);
void leave_channel(struct run *run);
bool on_control(int control);
void on_channel(struct channel *channel);

/* run.c */
struct message *new_message(void);
void tell(int socket, const struct message *message);
void tell_failure(int socket, const char *step, const char *object, int error);
int watch_fd(int fd, struct source *source);
void unwatch(int fd);
void give_order(const struct run *run, enum order order);
void kill_run(struct run *run);
void end_gently(struct run *run);
bool is_reaper(pid_t pid);
void on_ends(void);
void end_run(struct run *run, bool wait);
void dismiss(struct run *run);
void finish(struct run *run);
struct run *new_run(void);
void release(struct run *run);

/* handle.c */
bool heed(struct run *run, const char *text);
void announce(struct run *run);
void answer(struct run *run);

/* watch.c */
void hold(struct run *run, bool stop);
int watch_samples(void);
long processors(void);
void set_limits(const struct plan *plan, struct run *run);
int wait_milliseconds(void);
void look_at_all(void);
void on_samples(void);

#endif
