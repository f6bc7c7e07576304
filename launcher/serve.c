/*
 * The event loop: runs come in over the control socket, and for each one exactly one message goes out. Nothing here
 * may end the process for the fault of one run: functions return -1 and the run is reported failed.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

static struct {
	int epoll, alive[2];
	struct record *records;
	bool taken[MAX_RUNS];
	struct run *runs, *leaving; /* leaving: ended, but the sampler still looks */
	struct source control, caller, samples;
	char words[MAX_MESSAGE];
} server;

/* --- telling Python --- */

struct message { char text[2048]; size_t size; };

static void word(struct message *message, const char *text)
{
	enum { LONGEST = RECORD_OBJECT }; /* a longer one is cut: it may be missed, but the words after it never */
	size_t size = strnlen(text, LONGEST - 1), room = sizeof message->text - message->size;
	if (size >= room)
		size = room - 1; /* never: a step, an object and two dozen numbers are all that is ever said */
	memcpy(message->text + message->size, text, size);
	message->text[message->size + size] = '\0';
	message->size += size + 1;
}

static void number(struct message *message, const char *key, int64_t value)
{
	char text[32];
	snprintf(text, sizeof text, "%lld", (long long)value);
	word(message, key);
	word(message, text);
}

static void tell(int socket, const struct message *message)
{
	/* One message on a fresh socket always fits; a caller that has gone does not matter. */
	if (send(socket, message->text, message->size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void tell_failure(int socket, const char *step, const char *object, int error)
{
	struct message message = {.size = 0};
	word(&message, "failed");
	word(&message, step);
	word(&message, object);
	number(&message, "errno", error);
	tell(socket, &message);
}

/* --- the life of a run --- */

static int watch(int fd, struct source *source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
	return epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &event);
}

static void last_look(struct run *run)
{
	struct sample found;
	look_once(run->reaper, &found);
	if (found.cpu > run->cpu_seen)
		run->cpu_seen = found.cpu;
	if (found.tasks > run->peak_tasks)
		run->peak_tasks = found.tasks;
}

static void give_order(const struct run *run, enum order order)
{
	__atomic_store_n(&server.records[run->slot].order, order, __ATOMIC_RELEASE);
	syscall(SYS_pidfd_send_signal, run->pidfd, SIGUSR1, NULL, 0);
}

/*
 * Pid 1 first: one that still saw the command die would report that as the command's own end. A reaper that is no pid 1
 * ends its run itself; where the command could keep it from that it is killed, and what it leaves comes to us.
 */
static void kill_run(struct run *run)
{
	if (run->killed)
		return;
	run->killed = true;
	if (!run->cage && !run->memory_exceeded) /* that was just looked at, and grows until it is dead */
		last_look(run);
	if (run->reach == REACH_DOMAIN) {
		give_order(run, ORDER_KILL);
		run->last_chance = now() + INT64_C(5000000000);
	} else
		syscall(SYS_pidfd_send_signal, run->pidfd, SIGKILL, NULL, 0);
	if (run->cage)
		cage_kill(run->cage);
}

static void facts(struct message *message, struct run *run, int reaper_status, const struct rusage *usage)
{
	const struct record *record = &server.records[run->slot];
	struct cage_usage cage = {
		.user = -1, .system = -1, .peak = -1, .seen = -1, .refused_forks = -1, .throttled = -1, .disk_read = -1,
		.disk_written = -1, .cpu_pressure = -1, .memory_pressure = -1, .io_pressure = -1,
	};
	int64_t end = record->done ? record->ended : now();
	int64_t user = usage->ru_utime.tv_sec * INT64_C(1000000000) + usage->ru_utime.tv_usec * INT64_C(1000);
	int64_t system = usage->ru_stime.tv_sec * INT64_C(1000000000) + usage->ru_stime.tv_usec * INT64_C(1000);
	int64_t rss = usage->ru_maxrss * INT64_C(1024), peak = run->sampling ? 0 : run->watch.peak;
	if (run->cage)
		cage_usage(run->cage, &cage);
	else if (run->cpu_seen > user + system)
		user = run->cpu_seen - system;
	word(message, "ended");
	number(message, "done", record->done);
	number(message, "status", record->done ? record->status : -1);
	number(message, "reaper", reaper_status);
	number(message, "wall", end - record->started);
	number(message, "user", cage.user >= 0 ? cage.user : user);
	number(message, "system", cage.system >= 0 ? cage.system : system);
	if (cage.seen > peak)
		peak = cage.seen;
	number(message, "peak", cage.peak >= 0 ? cage.peak : peak > rss ? peak : rss);
	number(message, "tasks", run->peak_tasks);
	bool own = cage.met_limit; /* else the kernel killed for a limit above ours, or for the whole host */
	number(message, "oom_kills", own && cage.oom_kills > 0 ? cage.oom_kills : 0);
	number(message, "outside_oom_kills", !own && cage.oom_kills > 0 ? cage.oom_kills : 0);
	number(message, "refused_forks", cage.refused_forks);
	number(message, "throttled", cage.throttled);
	number(message, "disk_read", cage.disk_read);
	number(message, "disk_written", cage.disk_written);
	number(message, "cpu_pressure", cage.cpu_pressure);
	number(message, "memory_pressure", cage.memory_pressure);
	number(message, "io_pressure", cage.io_pressure);
	number(message, "timed_out", run->timed_out);
	/* RLIMIT_CPU may have ended it between two looks: what was used tells. */
	int64_t used = (cage.user >= 0 ? cage.user : user) + (cage.system >= 0 ? cage.system : system);
	number(message, "cpu_exceeded", run->cpu_exceeded || (run->cpu_limit && used >= run->cpu_limit));
	number(message, "memory_exceeded", run->memory_exceeded);
	number(message, "tasks_exceeded", run->tasks_exceeded);
	number(message, "cancelled", run->cancelled);
}

/* Closing does not do: as long as the child of another run holds a copy, its events would still come (epoll(7)). */
static void unwatch(int fd)
{
	if (fd >= 0)
		epoll_ctl(server.epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void release(struct run *run)
{
	free(run->watch.ledger.seen);
	free(run);
}

static void forget(struct run *run)
{
	struct run **link = &server.runs;
	while (*link != run)
		link = &(*link)->next;
	*link = run->next;
	server.taken[run->slot] = false;
	unwatch(run->socket);
	unwatch(run->pidfd);
	if (run->cage) {
		unwatch(cage_oom_fd(run->cage));
		give_cage(run->cage);
	}
	close(run->pidfd);
	close(run->socket);
	if (run->sampling) {
		run->next = server.leaving;
		server.leaving = run;
	} else {
		release(run);
	}
}

static bool is_reaper(pid_t pid)
{
	for (const struct run *run = server.runs; run; run = run->next)
		if (run->reaper == pid)
			return true;
	return false;
}

static void finish(struct run *run)
{
	struct message message = {.size = 0};
	const struct record *record = &server.records[run->slot];
	if (record->error)
		tell_failure(run->socket, record->step, record->object, record->error);
	else {
		facts(&message, run, run->reaper_status, &run->usage);
		tell(run->socket, &message);
	}
	forget(run);
}

enum { SWEEP_INTERVAL = 2000000 }; /* ns; what is killed hands its children on to us */

/* The run may be gone afterwards, or end later: until nothing of it is left nobody is told. */
static void end_run(struct run *run, bool wait)
{
	while (wait4(run->reaper, &run->reaper_status, __WALL, &run->usage) < 0 && errno == EINTR)
		;
	run->reaper = 0;
	run->killed = true;
	run->last_chance = 0;
	/* A reaper that ended by itself has left nothing, and what others have left is no reason to wait for. */
	bool more = run->reach != REACH_NAMESPACE && WIFSIGNALED(run->reaper_status) && sweep_strays(is_reaper, wait);
	while (more && wait)
		more = sweep_strays(is_reaper, wait);
	if (!more) {
		finish(run);
		return;
	}
	unwatch(run->pidfd);
	run->ending = true;
	run->next_look = now() + SWEEP_INTERVAL;
}

/* --- deadlines and samples --- */

enum {
	PEAK_INTERVAL = 10000000, /* ns between two looks where a cgroup keeps no peak */
	SOONEST = 2000000, /* ns between two looks */
	FASTEST = 10,      /* bytes per ns and processor: what one can fill of huge pages */
};

static void hold(struct run *run, bool stop)
{
	if (stop || run->stopped)
		give_order(run, stop ? ORDER_STOP : ORDER_GO);
	run->stopped = stop;
}

/* A bucket that fills at the rate of the limit and holds a tenth of a second of it: cpu.max does the same. */
static void ration(struct run *run, int64_t time, int64_t used)
{
	int64_t full = INT64_C(100000) * run->cpu_permille;
	run->allowance += (time - run->last_look) / 1000 * run->cpu_permille - used;
	if (run->allowance > full)
		run->allowance = full;
	hold(run, run->allowance < 0);
}

static int64_t cpu_used(const struct run *run)
{
	return run->cage ? cage_cpu(run->cage) : run->cpu_seen;
}

/* When could a limit be reached at the soonest? All processors could be at it. */
static int64_t until_limit(int64_t left, int64_t rate)
{
	static long processors;
	if (!processors)
		processors = sysconf(_SC_NPROCESSORS_ONLN);
	int64_t wait = left / (rate * (processors > 0 ? processors : 1));
	return wait < SOONEST ? SOONEST : wait;
}

static int64_t until_cpu_limit(const struct run *run, int64_t used)
{
	return until_limit(run->cpu_limit - used, 1);
}

static int64_t until_memory_limit(const struct run *run, int64_t bound)
{
	return run->watch.limit ? until_limit(run->watch.limit - bound, FASTEST) : INT64_MAX;
}

static void check_cpu_time(struct run *run, int64_t time)
{
	int64_t used = cpu_used(run);
	if (used >= run->cpu_limit) {
		run->cpu_exceeded = true;
		kill_run(run);
	} else if (time + until_cpu_limit(run, used) < run->next_look) {
		run->next_look = time + until_cpu_limit(run, used);
	}
}

static void exceed_memory(struct run *run)
{
	run->memory_exceeded = true;
	kill_run(run);
}

/*
 * The sampler is one thread beside a tree that may have thousands, all runnable, and would see it grow by gigabytes while it
 * waits for its turns. So a tree that takes long to look at is stopped meanwhile.
 */
static void await_sample(struct run *run)
{
	int64_t bound, time = run->watch.limit ? look_takes(&run->watch, &bound) : 0;
	if (time > LOOK_BUDGET && bound > run->watch.limit)
		exceed_memory(run);
	else if (time > PATIENCE && !run->stopped) /* once: each order costs pid 1 its turn, and the kill needs one */
		hold(run, true);
}

static void look_for_strays(struct run *run, int64_t time)
{
	if (run->next_look > time)
		return;
	run->next_look = time + SWEEP_INTERVAL;
	if (!sweep_strays(is_reaper, false))
		finish(run);
}

static void look(struct run *run, int64_t time)
{
	if (run->ending) {
		look_for_strays(run, time);
		return;
	}
	if (run->last_chance && time >= run->last_chance) { /* it hangs in vfork(2), on a file system that does not answer */
		run->last_chance = 0;
		syscall(SYS_pidfd_send_signal, run->pidfd, SIGKILL, NULL, 0);
	}
	if (run->killed)
		return;
	if (run->deadline && time >= run->deadline) {
		run->timed_out = true;
		kill_run(run);
		return;
	}
	if (run->next_look > time)
		return;
	run->next_look = run->interval ? time + PATIENCE : INT64_MAX;
	if (run->wants_looks) {
		cage_look(run->cage);
		run->next_look = time + PEAK_INTERVAL;
	}
	if (run->sampling) {
		await_sample(run);
	} else if (run->interval) {
		run->sampling = true;
		ask_for_sample(&run->watch);
	} else if (run->cpu_limit) {
		check_cpu_time(run, time);
	}
}

static void on_sample(struct run *run, int64_t time)
{
	const struct sample *found = &run->watch.result;
	int64_t used = found->cpu > run->cpu_seen ? found->cpu - run->cpu_seen : 0;
	run->sampling = false;
	run->cpu_seen += used;
	if (found->tasks > run->peak_tasks)
		run->peak_tasks = found->tasks;
	if (run->killed)
		return;
	if (run->watch.limit && found->memory > run->watch.limit) {
		exceed_memory(run);
		return;
	}
	if (run->task_limit && found->tasks > run->task_limit) {
		run->tasks_exceeded = true;
		kill_run(run);
		return;
	}
	if (run->cpu_permille)
		ration(run, time, used);
	else
		hold(run, false);
	run->last_look = time;
	int64_t wait = until_memory_limit(run, found->bound);
	if (wait > run->interval)
		wait = run->interval;
	/* A tree that is slow to look at is looked at less often: at the most half a processor goes into it. */
	run->next_look = time + (found->cost > wait ? found->cost : wait);
	if (run->cpu_limit)
		check_cpu_time(run, time);
}

static void on_samples(void)
{
	eventfd_t count;
	int64_t time = now();
	eventfd_read(start_sampler(), &count);
	for (struct run *run = server.runs; run; run = run->next)
		if (run->sampling && sample_is_there(&run->watch))
			on_sample(run, time);
	for (struct run **link = &server.leaving; *link;) {
		struct run *run = *link;
		if (sample_is_there(&run->watch)) {
			*link = run->next;
			release(run);
		} else {
			link = &run->next;
		}
	}
}

static int wait_milliseconds(void)
{
	int64_t soonest = INT64_MAX, time = now();
	for (struct run *run = server.runs; run; run = run->next) {
		if (run->last_chance && run->last_chance < soonest)
			soonest = run->last_chance;
		if (run->ending && run->next_look < soonest)
			soonest = run->next_look;
		if (run->killed)
			continue;
		if (run->deadline && run->deadline < soonest)
			soonest = run->deadline;
		if (run->next_look < soonest)
			soonest = run->next_look;
	}
	if (soonest == INT64_MAX)
		return -1;
	if (soonest <= time)
		return 0;
	int64_t wait = (soonest - time + 999999) / 1000000;
	return wait > 1000000 ? 1000000 : (int)wait;
}

static void look_at_all(void)
{
	int64_t time = now();
	for (struct run *run = server.runs, *next; run; run = next) {
		next = run->next; /* it may be over */
		look(run, time);
	}
}

/* --- starting --- */

static int take_slot(void)
{
	for (int slot = 0; slot < MAX_RUNS; slot++)
		if (!server.taken[slot]) {
			server.taken[slot] = true;
			memset(&server.records[slot], 0, sizeof server.records[slot]);
			return slot;
		}
	errno = EAGAIN;
	return -1;
}

static void close_trees(const struct plan *plan, const struct resources *resources)
{
	for (size_t i = 0; i < plan->n_mounts; i++)
		if (resources->trees[i] >= 0)
			close(resources->trees[i]);
}

/* Everything that can be had before the clone: so that the child need not see the host at all. */
static int prepare(const struct plan *plan, struct run *run, struct resources *resources, const char **step, const char **object)
{
	resources->view = resources->cgroup = -1;
	resources->alive = server.alive[0];
	resources->host_uid = plan->host_uid_count ? plan->host_uid + run->slot % plan->host_uid_count : 0;
	for (size_t i = 0; i < plan->n_mounts; i++)
		resources->trees[i] = -1;
	*step = "seccomp";
	*object = "";
	resources->filter = plan->seccomp ? compile_filter(plan->seccomp_options) : 0;
	if (resources->filter < 0)
		return -1;
	if (plan->view_key && (resources->view = find_view(plan, resources->host_uid, object, step)) < 0)
		return -1;
	if (open_trees(plan, false, resources->host_uid, resources->trees, object, step) < 0)
		return -1;
	*step = "cgroup";
	if ((plan->cgroup2 || plan->n_cgroup1) && !(run->cage = take_cage(plan, object))) {
		close_trees(plan, resources);
		return -1;
	}
	return 0;
}

/* The sampler is started when the first run needs it. */
static int watch_samples(void)
{
	static bool watched;
	int event = start_sampler();
	server.samples = (struct source){SAMPLES, NULL};
	if (!watched && event >= 0)
		watched = watch(event, &server.samples) == 0;
	return watched ? 0 : -1;
}

static void set_limits(const struct plan *plan, const struct resources *resources, struct run *run)
{
	run->born = run->last_look = now();
	run->deadline = plan->timeout ? run->born + (int64_t)plan->timeout : 0;
	run->cpu_limit = (int64_t)plan->cpu_time;
	run->interval = (int64_t)plan->sample_interval;
	run->watch.reaper = run->reaper;
	run->watch.uid = plan->namespaces & CLONE_NEWUSER || !plan->host_uid_count ? 0 : resources->host_uid;
	run->watch.private_tmp = plan->namespaces & CLONE_NEWNS;
	run->watch.limit = (int64_t)plan->sampled_memory;
	run->cpu_permille = (int64_t)plan->sampled_cpu_percent;
	run->task_limit = (int64_t)plan->sampled_tasks;
	run->reach = plan->reach;
	run->next_look = run->interval ? run->born + run->interval :
		run->cpu_limit ? run->born + until_cpu_limit(run, 0) : INT64_MAX;
	run->wants_looks = run->cage && cage_wants_looks(run->cage);
	if (run->wants_looks && run->next_look > run->born + PEAK_INTERVAL)
		run->next_look = run->born + PEAK_INTERVAL;
}

static int watch_run(struct run *run)
{
	if (run->interval && watch_samples() < 0)
		return -1;
	run->socket_source = (struct source){SOCKET_, run};
	run->reaper_source = (struct source){REAPER, run};
	run->oom_source = (struct source){OOM, run};
	if (watch(run->socket, &run->socket_source) < 0 || watch(run->pidfd, &run->reaper_source) < 0)
		return -1;
	int oom = run->cage ? cage_oom_fd(run->cage) : -1;
	return oom >= 0 ? watch(oom, &run->oom_source) : 0;
}

/* Whether the socket belongs to a run now; if not, its owner has been told why. */
static bool start(const struct plan *plan, int socket, const int *descriptors)
{
	static struct resources resources;
	const char *step = "launch", *object = "";
	struct run *run = calloc(1, sizeof *run);
	int slot = run ? take_slot() : -1;
	if (slot < 0) {
		tell_failure(socket, step, object, errno);
		free(run);
		return false;
	}
	run->slot = (unsigned)slot;
	run->socket = socket;
	run->pidfd = -1;
	struct record *record = &server.records[slot];
	memcpy(resources.descriptors, descriptors, plan->n_targets * sizeof *descriptors);
	if (prepare(plan, run, &resources, &step, &object) < 0) {
		tell_failure(socket, step, object, errno);
		goto failed;
	}
	record->started = now();
	if (run->cage)
		run->reaper = cage_spawn(run->cage, plan, &resources, record, &run->pidfd);
	else
		run->reaper = spawn(plan, &resources, record, &run->pidfd);
	close_trees(plan, &resources);
	if (run->reaper < 0) {
		tell_failure(socket, record->step, record->object, record->error);
		goto failed;
	}
	set_limits(plan, &resources, run);
	run->next = server.runs;
	server.runs = run;
	if (watch_run(run) < 0) { /* without its events it could not be watched: it ends, and is reported as cancelled */
		run->cancelled = true;
		kill_run(run);
		end_run(run, true);
	}
	return true;
failed:
	if (run->cage)
		give_cage(run->cage);
	server.taken[slot] = false;
	free(run);
	return false;
}

static void close_all(const int *descriptors, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(descriptors[i]);
}

/* As start(). The descriptors stay the caller's to close, but for the socket. */
static bool launch(const char *words, size_t size, int socket, const int *descriptors, size_t count)
{
	static struct plan plan;
	const char *why = "";
	size_t n_storage = count_words(words, size) + 2;
	char **storage = calloc(n_storage, sizeof *storage);
	bool kept = false;
	if (!storage)
		tell_failure(socket, "words", "", ENOMEM);
	else if (parse_words(words, size, storage, n_storage, &plan, &why) < 0)
		tell_failure(socket, "words", why, EINVAL);
	else if (plan.n_targets != count)
		tell_failure(socket, "words", "descriptors named and sent differ", EINVAL);
	else
		kept = start(&plan, socket, descriptors);
	free(storage);
	return kept;
}

static void launch_from_memfd(int memfd, int socket, const int *descriptors, size_t count)
{
	struct stat status;
	if (fstat(memfd, &status) < 0 || status.st_size <= 0 || status.st_size > MAX_WORDS_BYTES) {
		tell_failure(socket, "words", "memfd", E2BIG);
		close(socket);
		return;
	}
	size_t size = (size_t)status.st_size;
	char *words = malloc(size);
	bool kept = false;
	if (words && pread(memfd, words, size, 0) == (ssize_t)size)
		kept = launch(words, size, socket, descriptors, count);
	else
		tell_failure(socket, "words", "memfd", EIO);
	if (!kept)
		close(socket);
	free(words);
}

/* --- events --- */

static size_t receive(int control, int *descriptors, ssize_t *size)
{
	union { char room[CMSG_SPACE(sizeof(int) * 253)]; struct cmsghdr align; } ancillary;
	struct iovec body = {server.words, sizeof server.words};
	struct msghdr header = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
	*size = recvmsg(control, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (*size <= 0)
		return 0;
	size_t count = 0;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part))
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
			count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(descriptors, CMSG_DATA(part), count * sizeof(int));
		}
	if (header.msg_flags & MSG_TRUNC)
		*size = 1; /* cut off: no words begin so; launch() refuses it on the run's socket */
	if (header.msg_flags & MSG_CTRUNC)
		*size = 0; /* RLIMIT_NOFILE: some descriptors did not fit into our table */
	return count;
}

/* "idmap PATH": can what lies there be shown as another user's? A file system can or cannot; only trying tells. */
static void tell_idmap(int socket, size_t size)
{
	const char *path = server.words + sizeof "idmap";
	if (size <= sizeof "idmap" || server.words[size - 1])
		tell_failure(socket, "words", "idmap", EINVAL);
	else
		tell_failure(socket, "idmap", path, try_idmap(path) < 0 ? errno : 0);
}

static bool on_control(int control)
{
	int descriptors[253];
	ssize_t size;
	size_t count = receive(control, descriptors, &size);
	if (size < 0)
		return errno == EAGAIN || errno == EINTR;
	if (size == 0 && !count)
		return false; /* Python has closed its end */
	if (!count)
		return true;
	int socket = descriptors[0];
	if (size == 0) {
		tell_failure(socket, "descriptors", "RLIMIT_NOFILE of the launcher", EMFILE);
		close_all(descriptors, count);
		return true;
	}
	if (!strcmp(server.words, "idmap")) {
		tell_idmap(socket, (size_t)size);
		close_all(descriptors, count);
		return true;
	}
	if (!strcmp(server.words, "memfd") && count >= 2) {
		launch_from_memfd(descriptors[1], socket, descriptors + 2, count - 2);
		close_all(descriptors + 1, count - 1);
		return true;
	}
	if (!launch(server.words, (size_t)size, socket, descriptors + 1, count - 1))
		close(socket);
	close_all(descriptors + 1, count - 1);
	return true;
}

static void on_socket(struct run *run)
{
	char text[16]; /* "kill", or the end: there is nothing else to say */
	ssize_t size = recv(run->socket, text, sizeof text, MSG_DONTWAIT);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0)
		unwatch(run->socket); /* the caller has let go of it: it would be readable for ever */
	if (!run->killed)
		run->cancelled = true;
	kill_run(run);
}

/* v1 kills one process of the cgroup; a limit is on the whole tree, so the tree goes, as with memory.oom.group of v2. */
static void on_oom(struct run *run)
{
	uint64_t count;
	if (read(cage_oom_fd(run->cage), &count, sizeof count) < 0)
		return;
	if (run->killed || !cage_met_limit(run->cage))
		return; /* the kernel kills whom it must; what that was, the counters tell at the end */
	run->memory_exceeded = true;
	kill_run(run);
}

static void greet(int control)
{
	char words[1024];
	size_t size = (size_t)snprintf(words, sizeof words, "version%c%s", 0, VERSION) + 1;
	size += probe(words + size, sizeof words - size);
	if (send(control, words, size, MSG_NOSIGNAL) < 0)
		_exit(125);
}

static int open_server(void)
{
	server.epoll = epoll_create1(EPOLL_CLOEXEC);
	server.records = mmap(NULL, MAX_RUNS * sizeof *server.records, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (server.epoll < 0 || server.records == MAP_FAILED || pipe2(server.alive, O_CLOEXEC) < 0)
		return -1;
	/* A subreaper: what a reaper without a pid namespace leaves, should it be killed, comes to us and to nobody else. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return -1;
	return prctl(PR_SET_DUMPABLE, 0);
}

static void end_all(void)
{
	for (struct run *run = server.runs; run; run = run->next)
		kill_run(run);
	while (server.runs) {
		if (server.runs->ending) {
			while (sweep_strays(is_reaper, true))
				;
			finish(server.runs);
		} else {
			end_run(server.runs, true);
		}
	}
	remove_cages();
}

static void on_run(const struct source *source)
{
	switch (source->kind) {
	case SOCKET_: on_socket(source->run); break;
	case REAPER: end_run(source->run, false); break;
	case OOM: on_oom(source->run); break;
	case SAMPLES: on_samples(); break;
	default: break;
	}
}

int serve(int control)
{
	pid_t caller_pid = getppid();
	int caller = (int)syscall(SYS_pidfd_open, caller_pid, 0);
	fcntl(control, F_SETFD, FD_CLOEXEC);
	if (open_server() < 0 || caller < 0 || getppid() != caller_pid)
		return 125;
	greet(control);
	server.control = (struct source){CONTROL, NULL};
	server.caller = (struct source){CALLER, NULL};
	if (watch(control, &server.control) < 0 || watch(caller, &server.caller) < 0)
		return 125;
	for (bool going = true; going;) {
		struct epoll_event event;
		/* One event at a time: what one handler frees can't be in a list that another still holds. */
		int count = epoll_wait(server.epoll, &event, 1, wait_milliseconds());
		if (count < 0 && errno != EINTR)
			break;
		if (count > 0) {
			const struct source *source = event.data.ptr;
			if (source->kind == CONTROL)
				going = on_control(control);
			else if (source->kind == CALLER)
				going = false;
			else
				on_run(source);
		}
		look_at_all();
	}
	end_all();
	return 0;
}

/* "launcher run": the same run with the shell's own descriptors, to repeat by hand what Python did. */
int run_once(const char *words, size_t size)
{
	int pair[2], own[] = {0, 1, 2};
	char text[2048];
	if (open_server() < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 125;
	if (launch(words, size, pair[0], own, 3)) {
		while (server.runs) {
			struct epoll_event event;
			if (epoll_wait(server.epoll, &event, 1, wait_milliseconds()) > 0)
				on_run(event.data.ptr);
			look_at_all();
		}
	}
	remove_cages();
	ssize_t count = recv(pair[1], text, sizeof text, MSG_DONTWAIT);
	int code = 125, status = -1;
	for (ssize_t at = 0; at < count; at += (ssize_t)strlen(text + at) + 1) {
		fprintf(stderr, "%s%s", at ? " " : "launcher: ", text + at);
		if (!strcmp(text + at, "status"))
			status = atoi(text + at + 7);
	}
	fprintf(stderr, "\n");
	if (status >= 0)
		code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return code;
}
