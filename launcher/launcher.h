/*
 * The launcher's map: the plan as the words give it, the record that a run leaves, every prototype.
 * Read main.c for the theory of operation, enter.c for the steps between clone and execve, and serve.h for the map of the event
 * loop: which runs there are, and which sandboxes are prepared for the next ones. Of other systems than Linux:
 * posix/main.c and posix/enter.c; they share words.c, limits.c and report.c, which include nothing that only Linux has.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/time.h>
#include <sys/types.h>

#ifndef VERSION
#define VERSION "0.0.0"
#endif

enum {
	MAX_MOUNTS = 768,      /* mount operations of one plan; the planner knows both numbers */
	MAX_RULES = 512,       /* Landlock rules */
	MAX_RLIMITS = 16,
	MAX_SYSCTLS = 16,
	MAX_CONTROLLERS = 8,
	MAX_SETTINGS = 1024,   /* cgroup settings: each disk has one */
	MAX_DESCRIPTORS = 200, /* SCM_MAX_FD is 253; one may be a channel, one may carry the words */
	MAX_RUNS = 4096,       /* alive at once in one launcher */
	MAX_MESSAGE = 65536,   /* words that travel in the message itself; longer ones come as a memfd */
	MAX_WORDS_BYTES = 16 << 20,
	PREPARED_WORDS = 1 << 14, /* bytes of a command for a prepared sandbox */
	MAX_PREPARED = 16,      /* prepared sandboxes of one plan, and of all together; the planner knows it */
};

/* --- the plan ------------------------------------------------------------------------------------------------- */

enum mount_kind {
	MOUNT_BIND,    /* source on the host -> target */
	MOUNT_ALIAS,   /* source inside the view -> target */
	MOUNT_TMPFS,
	MOUNT_PROC,
	MOUNT_DIR,     /* mkdir */
	MOUNT_FILE,    /* a file whose content is the source */
	MOUNT_SYMLINK, /* a link to the source */
	MOUNT_DEVICE,  /* mknod of the host's device of that name (root only) */
	MOUNT_SEAL,    /* the mount at the target becomes read-only */
};

struct mount_op {
	bool shared; /* part of the view that all runs of the plan inherit */
	enum mount_kind kind;
	const char *source, *target;
	bool read_only, noexec, nodev, idmap;
	mode_t mode;
	const char *data; /* tmpfs options, as in tmpfs(5) */
	uint32_t uid, gid; /* idmap: owner on disk */
};

struct setting { const char *name, *value; };
struct rlimit_op { int resource; uint64_t value; };
struct rule { const char *path; char access; /* 'r'ead, 's'ystem: read if it can be reached, 'w'rite, 'd'evice, 'p'rivate: written by nobody else, 'f'oreign: see landlock.c */ };

/*
 * What kill(-1) of a run's reaper reaches: all of its pid namespace; all of its Landlock domain (the scope of signals, ABI 6);
 * or, with neither, every process of its user, so that it is never used: then children are killed one by one.
 */
enum reach { REACH_NAMESPACE, REACH_DOMAIN, REACH_CHILDREN };

enum network { NETWORK_NONE, NETWORK_LOOPBACK, NETWORK_HOST };

struct command { const char *path; char **argv; }; /* argv: NULL-terminated */

/* What the command's own process is given before it is executed. */
struct start {
	mode_t umask;
	struct rlimit_op rlimits[MAX_RLIMITS];
	size_t n_rlimits;
	const char *cwd;
	char **envp; /* NULL-terminated, in storage that the caller of parse_plan gave, as the command's argv */
};

struct plan {
	const char *hostname;
	uint64_t namespaces; /* CLONE_NEW* */
	enum reach reach;
	uint32_t uid, gid;   /* inside the user namespace */
	uint32_t host_uid, host_uid_count; /* as root: a range from which each run takes one; 0: the caller's own */
	enum network network;
	struct mount_op mounts[MAX_MOUNTS];
	size_t n_mounts;
	const char *view_key; /* the words of the shared mounts, as they came: the key of the view */
	size_t view_key_size;
	struct setting sysctls[MAX_SYSCTLS];
	size_t n_sysctls;
	int landlock_abi; /* 0: no Landlock */
	struct rule rules[MAX_RULES];
	size_t n_rules;
	bool landlock_net, landlock_scope;
	bool seccomp;
	unsigned seccomp_options;
	const char *cgroup2; /* parent directory, or NULL */
	struct setting cgroup1[MAX_CONTROLLERS]; /* controller, parent directory */
	size_t n_cgroup1;
	struct setting settings[MAX_SETTINGS];
	size_t n_settings;
	uint64_t timeout, cpu_time;                    /* ns; 0: none */
	uint64_t sample_interval;                      /* ns; 0: nothing is sampled */
	uint64_t sampled_memory, sampled_cpu_percent, sampled_tasks; /* 0: not limited; cpu in 1/1000 of a core */
	int nice;
	const char *oom_score_adj; /* NULL: the launcher's */
	bool held;             /* somebody holds a handle to the run: who it is is told when it has begun */
	uint64_t grace;        /* ns between SIGTERM and SIGKILL; 0: SIGKILL at once */
	int prepared;          /* sandboxes to keep prepared for the next runs; -1: one, where runs follow one another */
	int targets[MAX_DESCRIPTORS]; /* descriptor numbers in the command, in the order in which they came */
	size_t n_targets;
	const char *terminal; /* descriptor 0 becomes the controlling terminal, and is the command's own; its name inside, "-" without one; NULL: none */
	struct start start;
	struct command command;
};

/* words.c, and linux/words.c or posix/words.c: pure; -1 with a message in *why */
int parse_words(const char *words, size_t size, char **storage, struct plan *plan, const char **why);
int parse_plan(const char *words, size_t size, char **storage, struct plan *plan, size_t *used, const char **why);
int parse_command(const char *words, size_t size, char **storage, struct command *command, const char **why);
size_t count_words(const char *words, size_t size);
char *join_words(int argc, char **argv, size_t *size);

/* --- what a run leaves in memory that the launcher shares with the run's reaper ----------------------------------- */

enum { RECORD_OBJECT = 1024 };

enum order { ORDER_GO, ORDER_STOP, ORDER_KILL };

struct record {
	int go;          /* futex: the identity maps are written */
	int order;       /* what the launcher wants of the tree; SIGUSR1 tells the reaper to look */
	uint64_t signals, tree_signals; /* to be passed on, to the command and to the whole tree: bit N - 1 for signal N */
	int command;     /* the command's process id where the reaper is, once it has begun and somebody wants to know */
	int told;        /* a prepared sandbox has heard its command */
	int done;        /* the command has ended; status is valid */
	int alone;       /* and nothing that it started is left */
	int dismissed;   /* futex: the launcher has told so, and the reaper may end */
	int status;      /* wait status of the command */
	int error;       /* errno of the step that failed, or 0 */
	char step[24];
	char object[RECORD_OBJECT];
	int64_t started, ended; /* CLOCK_MONOTONIC, ns */
	int64_t user, system;   /* ns of waited-for children, from getrusage(2); before the command starts, what preparing it took */
	int64_t max_rss;        /* bytes, the largest single process */
};

/* The facts of a run's end, as they are told: as numbers, for somebody waits. The package's Ended has the same ones in the same order. */
#define FACTS(X) \
	X(bool, done) X(int64_t, exit_code) X(int64_t, signal) X(int64_t, wall) X(int64_t, user) X(int64_t, system) X(int64_t, peak) \
	X(int64_t, tasks) X(int64_t, oom_kills) X(int64_t, outside_oom_kills) X(int64_t, refused_forks) X(int64_t, throttled) \
	X(bool, timed_out) X(bool, cpu_exceeded) X(bool, memory_exceeded) X(bool, tasks_exceeded) X(bool, cancelled) \
	X(int64_t, disk_read) X(int64_t, disk_written) X(int64_t, cpu_pressure) X(int64_t, memory_pressure) X(int64_t, io_pressure) \
	X(bool, terminated) X(int64_t, sent)

struct __attribute__((packed)) facts {
#define FACT(type, name) type name;
	FACTS(FACT)
#undef FACT
};

/* report.c */
void record_failure(struct record *record, const char *step, const char *object, int error);
noreturn void die(struct record *record, const char *step, const char *object);
int64_t now(void);
int64_t nanoseconds(struct timeval time);
struct message { char text[2048]; size_t size; };
void add_word(struct message *message, const char *text);
void add_number(struct message *message, const char *key, int64_t value);
void add_bytes(struct message *message, const void *bytes, size_t size);

/* limits.c */
void set_rlimits(const struct start *start, struct record *record);
void add_niceness(int more, struct record *record);

/* memory.c */
struct piece { struct piece *next; };
struct pool { size_t size; struct piece *free; }; /* size: of each piece, as sizeof tells it, at most 64 KiB */
void keep_from_children(void *begin, size_t size);
void let_go(const void *begin, const void *end);
void *take_from(struct pool *pool);
void give_back(struct pool *pool, void *what);

/* --- steps --------------------------------------------------------------------------------------------------------- */

/* The launcher's, of which its clone has copies until the command is executed: it lets go of them then. */
struct borrowed_memory { struct { const void *begin, *end; } parts[3]; };

/* What the launcher opened for a run before the clone: the child inherits it. */
struct resources {
	int view;                  /* mount namespace of the shared view, or -1 */
	int trees[MAX_MOUNTS];     /* detached mounts of the run's own binds, -1 elsewhere */
	int descriptors[MAX_DESCRIPTORS];
	int cgroup;                /* cgroup v2 directory to be born in, or -1 */
	int filter;                /* index of the compiled syscall filter */
	int ends;                  /* eventfd by which reapers tell that their runs have ended */
	const struct borrowed_memory *memory;
	bool untied;               /* the thread that clones it is not the one that it dies with, and others admit it */
	int command;               /* where a prepared sandbox is told its command, or -1: it is known */
	uint32_t host_uid;         /* the uid that this run got */
};

/* enter.c */
noreturn void reap(const struct plan *plan, const struct resources *resources, struct record *record);

/* linux/spawn.c */
struct identity { bool root; uint32_t uid, gid; int home, root_directory, proc; }; /* proc: reached from within a view too */
extern struct identity identity;
int become_launcher(bool empty_network);
pid_t spawn(const struct plan *plan, const struct resources *resources, struct record *record, int *pidfd);
void admit(const struct plan *plan, const struct resources *resources, struct record *record, pid_t pid);
void refuse(struct record *record);
int write_text(int directory, const char *path, const char *text);
int map_fd(uint32_t from_uid, uint32_t from_gid, uint32_t to_uid);
int return_home(void);

/* linux/mounts.c */
int open_trees(const struct plan *plan, bool shared, uint32_t host_uid, int *trees, const char **object, const char **step);
int find_view(const struct plan *plan, uint32_t host_uid, const char **object, const char **step);
int try_idmap(const char *path);
void forget_views(void);
bool check_views(void);
enum part { PART_SHARED, PART_PROC, PART_OWN }; /* of a view: what many runs see, a run's own /proc, its other own mounts */
int apply_mounts(const struct plan *plan, enum part part, const int *trees, const char **object, const char **step);

/* linux/origins.c */
struct origins; /* what lay at the sources of mounts when they were opened */
struct origins *note_origins(const struct plan *plan, bool shared, const int *trees);
bool are_current(const struct origins *origins);
void free_origins(struct origins *origins);

/* linux/life.c */
int begin_life(void);
void end_life(void);
bool has_parent_died(bool adopted);
noreturn void await_parents_death(void);

/* linux/sweep.c */
pid_t child_on_host(pid_t parent, pid_t inside);
void kill_everything(enum reach reach);
void await_everything(enum reach reach);
bool sweep_strays(bool (*known)(pid_t), bool wait);

/* linux/privileges.c */
void drop_bounding_set(const struct plan *plan, struct record *record);
void set_identity(const struct plan *plan, uint32_t host_uid, struct record *record);
void drop_privileges(struct record *record);
void set_slice(uint64_t nanoseconds);

/* linux/landlock.c */
int landlock_abi(void);
void restrict_files(const struct plan *plan, struct record *record);
void restrict_signals(struct record *record);

/* linux/seccomp.c */
enum {
	FILTER_UNIX = 1,        /* AF_UNIX stream sockets may be made */
	FILTER_INET = 2,        /* AF_INET, AF_INET6 */
	FILTER_CONNECT = 4,     /* connect(2), and datagram AF_UNIX sockets */
	FILTER_MEMFD = 8,       /* memfd_create */
	FILTER_SETID = 16,      /* set-user-ID and set-group-ID bits may be set on files */
	FILTER_IPC = 32,        /* System V IPC and POSIX message queues */
	FILTER_BUFFERS = 64,    /* pipes and socket buffers may be enlarged, and vmsplice(2) */
	FILTER_TIMERS = 128,    /* signals of the caller's choice by timers and descriptors */
	FILTER_PIDS = 256,      /* process ids are those of a namespace of the run's own */
	FILTER_METADATA = 512,  /* modes, owners, times and attributes of files */
	FILTER_VARIANTS = 1024,
};
int compile_filter(unsigned options);
void restrict_syscalls(const struct plan *plan, int filter, struct record *record);
bool parse_filter_option(const char *word, size_t size, unsigned *options);

/* linux/cgroup.c */
struct cage; /* one set of cgroups, used by one run at a time */
struct cage_usage {
	int64_t user, system, cpu, peak, seen, oom_kills, hits, refused_forks, throttled;
	int64_t disk_read, disk_written, cpu_pressure, memory_pressure, io_pressure;
	bool met_limit;
};
struct cage *take_cage(const struct plan *plan, const char **object);
void begin_measuring(struct cage *cage);
void open_meters(struct cage *cage);
void measure_from_now(struct cage *cage);
pid_t cage_spawn(struct cage *cage, const struct plan *plan, struct resources *resources, struct record *record, int *pidfd);
bool cage_met_limit(struct cage *cage);
int cage_oom_fd(const struct cage *cage);
int64_t cage_cpu(struct cage *cage);
void cage_now(struct cage *cage, int64_t *cpu, int64_t *memory, int64_t *disk_read, int64_t *disk_written);
bool cage_wants_looks(struct cage *cage);
void cage_look(struct cage *cage);
bool cage_freeze(struct cage *cage, bool freeze);
void cage_kill(struct cage *cage);
void cage_usage(struct cage *cage, int64_t user, int64_t system, struct cage_usage *usage);
void give_cage(struct cage *cage);
void remove_cages(void);

/* linux/sampler.c */
enum {
	LOOK_BUDGET = 1000000000, /* ns for one run's exact figures, while it is stopped: others wait to be looked at */
	PATIENCE = 5000000,      /* ns after which a tree is stopped until the look at it is over */
};
struct sample { int64_t memory, bound, cpu, cost; int tasks; }; /* bytes, bytes at the most, ns, ns that taking it took */
struct seen { pid_t pid; uint64_t born; int64_t cpu; };
struct ledger { struct seen *seen; int count; int64_t total; };
struct watch { /* of one run; the sampler's own from ask_for_sample() until sample_is_there() */
	struct watch *next;
	pid_t reaper;
	int64_t limit, peak; /* memory in bytes; limit 0: not looked at */
	bool private_tmp;
	uint32_t uid;        /* whose eyes are needed to see what its processes share; 0: the launcher's do */
	unsigned ticks, doubts;
	struct ledger ledger;
	struct sample result;
	bool pending;
	int64_t began, bound; /* of the look that goes on: since when, 0 if not yet; bytes at the most, so far */
};
int start_sampler(void);
void ask_for_sample(struct watch *watch);
int64_t look_takes(const struct watch *watch, int64_t *bound);
bool sample_is_there(const struct watch *watch);
void look_once(pid_t reaper, struct sample *sample);

/* linux/probe.c: words "NAME RESULT", RESULT 0 or an errno, or a number where that is asked for */
size_t probe(char *words, size_t size);
int try(uint64_t flags, int (*trial)(void));

/* main.c */
extern char *heap; /* where it begins */

/* serve.c */
int serve(void);
int run_once(const char *words, size_t size);

#endif
