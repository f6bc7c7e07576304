/* One run: what is told of it, how it is ended, and what is left of it then: nothing. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct server server;
static struct pool runs = {sizeof(struct run), NULL};
enum { DISMISSAL_DELAY = 1000000 }; /* ns: longer than a caller takes for what it is told, shorter than until one is prepared (QUIET) */

/* --- telling Python --- */

struct message *new_message(void)
{
	server.message.size = 0;
	return &server.message;
}

/*
 * A run's end always fits, for the last one's was read before this one came; of answers more may be on the way than were read, and what
 * does not fit can be asked for again. A caller that has gone does not matter.
 */
void tell(int socket, const struct message *message)
{
	if (send(socket, message->text, message->size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

void tell_failure(int socket, const char *step, const char *object, int error)
{
	struct message *message = new_message();
	add_word(message, "failed");
	add_word(message, step);
	add_word(message, object);
	add_number(message, "errno", error);
	tell(socket, message);
}

/* --- the life of a run --- */

int watch_fd(int fd, struct source *source)
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

void give_order(const struct run *run, enum order order)
{
	__atomic_store_n(&server.records[run->slot].order, order, __ATOMIC_RELEASE);
	syscall(SYS_pidfd_send_signal, run->pidfd, SIGUSR1, NULL, 0);
}

/*
 * Pid 1 first: one that still saw the command die would report that as the command's own end. A reaper that is no pid 1
 * ends its run itself; where the command could keep it from that it is killed, and what it leaves comes to us.
 */
void kill_run(struct run *run)
{
	if (run->killed)
		return;
	run->killed = true;
	/* Who exceeds its memory was just looked at, and grows until it is dead; of others nobody will be told. */
	if (!run->cage && !run->memory_exceeded && !run->told)
		last_look(run);
	if (run->reach == REACH_DOMAIN) {
		give_order(run, ORDER_KILL);
		run->last_chance = now() + INT64_C(5000000000);
	} else
		syscall(SYS_pidfd_send_signal, run->pidfd, SIGKILL, NULL, 0);
	if (run->cage)
		cage_kill(run->cage);
}

/* SIGTERM first, where the caller wants that; who is stopped would not hear it. */
void end_gently(struct run *run)
{
	if (!run->grace || run->killed) {
		kill_run(run);
		return;
	}
	if (run->terminated)
		return;
	run->terminated = now();
	run->grace_end = run->terminated + run->grace;
	run->paused = false;
	if (run->cage)
		cage_freeze(run->cage, false);
	__atomic_or_fetch(&server.records[run->slot].tree_signals, UINT64_C(1) << (SIGTERM - 1), __ATOMIC_ACQ_REL);
	hold(run, false);
	give_order(run, ORDER_GO);
}

static struct facts facts_of(struct run *run)
{
	const struct record *record = &server.records[run->slot];
	struct cage_usage cage = {
		.user = -1, .system = -1, .peak = -1, .seen = -1, .refused_forks = -1, .throttled = -1, .disk_read = -1,
		.disk_written = -1, .cpu_pressure = -1, .memory_pressure = -1, .io_pressure = -1,
	};
	int64_t end = record->done ? record->ended : now();
	int64_t user = run->user, system = run->system, peak = run->sampling ? 0 : run->watch.peak;
	if (run->cage)
		cage_usage(run->cage, user, system, &cage);
	else if (run->cpu_seen > user + system)
		user = run->cpu_seen - system;
	if (cage.user >= 0)
		user = cage.user;
	if (cage.system >= 0)
		system = cage.system;
	if (cage.seen > peak)
		peak = cage.seen;
	if (run->max_rss > peak)
		peak = run->max_rss;
	bool own = cage.met_limit; /* else the kernel killed for a limit above ours, or for the whole host */
	return (struct facts){
		.done = record->done,
		.exit_code = record->done && WIFEXITED(record->status) ? WEXITSTATUS(record->status) : -1,
		.signal = record->done && WIFSIGNALED(record->status) ? WTERMSIG(record->status) : -1,
		.wall = end - record->started,
		.user = user,
		.system = system,
		.peak = cage.peak >= 0 ? cage.peak : peak,
		.tasks = run->peak_tasks,
		.oom_kills = own && cage.oom_kills > 0 ? cage.oom_kills : 0,
		.outside_oom_kills = !own && cage.oom_kills > 0 ? cage.oom_kills : 0,
		.refused_forks = cage.refused_forks,
		.throttled = cage.throttled,
		.disk_read = cage.disk_read,
		.disk_written = cage.disk_written,
		.cpu_pressure = cage.cpu_pressure,
		.memory_pressure = cage.memory_pressure,
		.io_pressure = cage.io_pressure,
		.timed_out = run->timed_out,
		/* RLIMIT_CPU may have ended it between two looks: what was used tells. */
		.cpu_exceeded = run->cpu_exceeded || (run->cpu_limit && user + system >= run->cpu_limit),
		.memory_exceeded = run->memory_exceeded,
		.tasks_exceeded = run->tasks_exceeded,
		.cancelled = run->cancelled,
		.terminated = run->terminated && (!record->done || record->ended > run->terminated),
		.sent = (int64_t)run->sent,
	};
}

/* Closing does not do: as long as the child of another run holds a copy, its events would still come (epoll(7)). */
void unwatch(int fd)
{
	if (fd >= 0)
		epoll_ctl(server.epoll, EPOLL_CTL_DEL, fd, NULL);
}

struct run *new_run(void)
{
	return take_from(&runs);
}

void release(struct run *run)
{
	free_origins(run->origins);
	free(run->watch.ledger.seen);
	give_back(&runs, run);
}

static void forget(struct run *run)
{
	struct run **link = &server.runs;
	while (*link != run)
		link = &(*link)->next;
	*link = run->next;
	server.taken[run->slot] = false;
	unwatch(run->pidfd);
	if (run->cage) {
		unwatch(cage_oom_fd(run->cage));
		give_cage(run->cage);
	}
	close(run->pidfd);
	if (run->sampling) {
		run->next = server.leaving;
		server.leaving = run;
	} else {
		release(run);
	}
}

bool is_reaper(pid_t pid)
{
	for (const struct run *run = server.runs; run; run = run->next)
		if (run->reaper == pid)
			return true;
	return false;
}

static void tell_end(struct run *run)
{
	struct message *message = new_message();
	const struct record *record = &server.records[run->slot];
	if (record->error) {
		tell_failure(run->channel->socket, record->step, record->object, record->error);
	} else {
		struct facts facts = facts_of(run);
		add_word(message, "facts");
		add_bytes(message, &facts, sizeof facts);
		tell(run->channel->socket, message);
	}
	leave_channel(run);
	run->told = run->killed = true;
}

void finish(struct run *run)
{
	if (!run->told)
		tell_end(run);
	forget(run);
}

void dismiss(struct run *run)
{
	run->dismissal = 0;
	struct record *record = &server.records[run->slot];
	__atomic_store_n(&record->dismissed, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &record->dismissed, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * All that the run was is gone but its reaper, which takes down the namespaces; nobody waits for that. The reaper's process id, the
 * cgroups and the user stay the run's until it has ended. What a reaper's end takes, RCU grace periods that interrupt every processor,
 * is work for a moment in which the caller is not busy with what it was just told. Who has sandboxes prepared leaves such moments.
 */
static void on_end(struct run *run)
{
	const struct record *record = &server.records[run->slot];
	run->user = record->user;
	run->system = record->system;
	run->max_rss = record->max_rss;
	tell_end(run);
	if (run->was_prepared)
		run->dismissal = now() + DISMISSAL_DELAY;
	else
		dismiss(run);
}

/* Which of them it was is not told, and who is done may have left processes that its reaper's end has yet to end. */
void on_ends(void)
{
	eventfd_t count;
	eventfd_read(server.ends, &count);
	for (struct run *run = server.runs; run; run = run->next) {
		if (!run->told && !run->announced && __atomic_load_n(&server.records[run->slot].command, __ATOMIC_ACQUIRE))
			announce(run);
		if (!run->told && !run->ending && __atomic_load_n(&server.records[run->slot].alone, __ATOMIC_ACQUIRE))
			on_end(run);
	}
}

static void wait_for_reaper(struct run *run)
{
	struct rusage usage = {0};
	while (wait4(run->reaper, &run->reaper_status, __WALL, &usage) < 0 && errno == EINTR)
		;
	run->reaper = 0;
	run->user = nanoseconds(usage.ru_utime);
	run->system = nanoseconds(usage.ru_stime);
	run->max_rss = usage.ru_maxrss * INT64_C(1024);
}

/* The run may be gone afterwards, or end later: until nothing of it is left nobody is told. */
void end_run(struct run *run, bool wait)
{
	if (run->kept)
		on_prepared_end(run);
	wait_for_reaper(run);
	run->killed = true;
	run->last_chance = 0;
	/* A reaper that ended by itself has left nothing, and what others have left is no reason to wait for. */
	bool more = run->reach != REACH_NAMESPACE && WIFSIGNALED(run->reaper_status);
	do
		more = more && sweep_strays(is_reaper, wait);
	while (more && wait);
	if (!more) {
		finish(run);
		return;
	}
	unwatch(run->pidfd);
	run->ending = true;
	run->next_look = now() + SWEEP_INTERVAL;
}
