/*
 * Sandboxes that are made ahead, for the next runs of a plan: built, confined, and waiting to be told the command (enter.c). Each
 * is used once. Nothing of another run is in them, for nothing but our own code has run there.
 *
 * They are made when there is nothing else to do, while a processor is free and the machine is not busy; few of them, and only
 * for plans whose runs follow one another or that ask for it; and they go when they are not used for a while, when
 * the host's mounts change, or when something else lies where they were made from.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IDLE_SECONDS
#define IDLE_SECONDS 10 /* the tests have less patience */
#endif
#ifndef SPARE
#define SPARE 0 /* how many more than the processors may want to run; the tests pass on a loaded machine */
#endif
static const int64_t IDLE = IDLE_SECONDS * INT64_C(1000000000);  /* ns without a run of its plan: then a prepared sandbox goes */
static const int64_t RETRY = IDLE_SECONDS * INT64_C(1000000000); /* ns from one that failed to the next */
static const int64_t PAUSE = 20000000;            /* ns until a busy machine is looked at again */
static const int64_t QUIET = 2000000;             /* ns without an event, after which there is time to prepare */
static int64_t not_before = INT64_MAX;            /* as long as nothing has happened, which for run_once() is always */

/* Something goes on: who has asked for it needs the processor that preparing would take. */
void note_event(void)
{
	not_before = now() + QUIET;
}

/* A plan that is asked for again before one prepared for it would have gone has runs that follow one another. */
void note_use(struct kept *kept)
{
	int64_t time = now();
	kept->repeated = kept->last_use && time - kept->last_use < IDLE;
	kept->last_use = time;
}

static bool lies_below(const char *path, const char *top)
{
	size_t size = strlen(top);
	return !strncmp(path, top, size) && path[size] == '/';
}

static bool is_mount(const struct mount_op *op)
{
	return op->kind == MOUNT_BIND || op->kind == MOUNT_ALIAS || op->kind == MOUNT_TMPFS || op->kind == MOUNT_PROC;
}

/* The mount that the target of this one lies in, the root of the view aside: NULL. */
static const struct mount_op *mount_below(const struct plan *plan, size_t which)
{
	for (size_t i = which; i-- > 0;)
		if (is_mount(&plan->mounts[i]) && lies_below(plan->mounts[which].target, plan->mounts[i].target))
			return &plan->mounts[i];
	return NULL;
}

/*
 * A mount in a directory of the host's is gone when somebody removes there what it is mounted on (mount_namespaces(7)), and what
 * was read-only is writable. The number of that inode can be given to what takes its place: then nothing would tell.
 */
static bool has_mounts_that_may_go(const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_mounts; i++) {
		const struct mount_op *below = plan->mounts[i].shared ? NULL : mount_below(plan, i);
		if (below && below->kind == MOUNT_BIND)
			return true;
	}
	return false;
}

/* The command of one is told by a message with its streams, and dies with pid 1. */
bool can_be_prepared(const struct plan *plan)
{
	return !plan->held && !plan->terminal && plan->reach == REACH_NAMESPACE && plan->n_targets == 3 && plan->targets[0] == 0 &&
	       plan->targets[1] == 1 && plan->targets[2] == 2 && !has_mounts_that_may_go(plan);
}

static int wanted(const struct kept *kept, int64_t time)
{
	if (time - kept->last_use > IDLE || time < kept->retry || !kept->preparable)
		return 0;
	return kept->plan.prepared >= 0 ? kept->plan.prepared : kept->repeated;
}

/* More could run now than there are processors, on the whole machine: the fourth field of proc_loadavg(5). We are one of them. */
static bool is_busy(void)
{
	static int file = -1;
	char text[128];
	int runnable;
	if (file < 0)
		file = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	ssize_t size = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
	if (size <= 0)
		return false; /* there is no /proc, and so no view and nothing to prepare */
	text[size] = '\0';
	return sscanf(text, "%*s %*s %*s %d/", &runnable) == 1 && runnable > processors() + SPARE;
}

static int count_prepared(void)
{
	int count = 0;
	for (struct kept *kept = each_plan(NULL); kept; kept = each_plan(kept))
		count += kept->prepared;
	return count;
}

/* The plan that a sandbox is to be prepared for, or NULL. */
static struct kept *next_to_prepare(int64_t time)
{
	struct kept *found = NULL;
	for (struct kept *kept = each_plan(NULL); kept; kept = each_plan(kept))
		if (kept->prepared < wanted(kept, time) && (!found || kept->last_use > found->last_use))
			found = kept;
	return found && count_prepared() < MAX_PREPARED ? found : NULL;
}

static void prepare(struct kept *kept)
{
	struct fault fault;
	int pair[2];
	if (is_busy()) {
		not_before = now() + PAUSE;
		return;
	}
	kept->retry = now() + RETRY; /* unless it comes to its end */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	struct run *run = spawn_run(&kept->plan, NULL, pair[1], &fault);
	close(pair[1]);
	if (!run) {
		close(pair[0]);
		return;
	}
	run->command = pair[0];
	run->parked_source = (struct source){PARKED, .run = run};
	watch_fd(run->command, &run->parked_source); /* where it cannot be, what is done then is done later */
	run->kept = kept;
	kept->prepared++;
	kept->retry = 0;
}

/* What can be done while nobody waits: from now on it uses nothing until it is told its command. */
void on_parked(struct run *run)
{
	char text[1];
	unwatch(run->command);
	run->parked = recv(run->command, text, sizeof text, MSG_DONTWAIT) == sizeof text;
	if (!run->parked)
		return; /* it has ended, which the end of its reaper tells */
	if (run->cage) {
		open_meters(run->cage);
		measure_from_now(run->cage);
	}
}

/* When there is time: see note_event(). */
void prepare_next(void)
{
	int64_t time = now();
	struct kept *next = time >= not_before ? next_to_prepare(time) : NULL;
	if (next)
		prepare(next);
}

/* It is a run like others now, or one that is on its way out. */
static void take_out(struct run *run)
{
	run->kept->prepared--;
	run->kept = NULL;
	run->was_prepared = true;
	if (!run->parked)
		unwatch(run->command);
	close(run->command);
	run->command = -1;
	free_origins(run->origins);
	run->origins = NULL;
}

static void drop_one(struct run *run)
{
	take_out(run);
	run->told = true; /* there is nobody to be told of it */
	kill_run(run);
}

/* It has failed, or was killed from outside: the next one would fare no better now. */
void on_prepared_end(struct run *run)
{
	run->kept->retry = now() + RETRY;
	drop_one(run);
}

/* kept: of this plan; NULL: of all. */
static void drop_those_of(const struct kept *kept)
{
	for (struct run *run = server.runs; run; run = run->next)
		if (run->kept && (!kept || run->kept == kept))
			drop_one(run);
}

void drop_prepared(struct kept *kept)
{
	if (kept->prepared)
		drop_those_of(kept);
}

void drop_all_prepared(void)
{
	drop_those_of(NULL);
}

static int64_t idle_from(const struct kept *kept)
{
	return kept->prepared ? kept->last_use + IDLE : INT64_MAX;
}

void drop_idle(int64_t time)
{
	for (struct kept *kept = each_plan(NULL); kept; kept = each_plan(kept))
		if (time > idle_from(kept))
			drop_prepared(kept);
}

int64_t next_look_at_prepared(void)
{
	int64_t soonest = next_to_prepare(now()) ? not_before : INT64_MAX;
	for (struct kept *kept = each_plan(NULL); kept; kept = each_plan(kept))
		if (idle_from(kept) < soonest)
			soonest = idle_from(kept);
	return soonest;
}

static bool tell_command(const struct run *run, const char *words, size_t size, const int *descriptors, size_t count)
{
	union { char room[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } ancillary = {0};
	struct iovec body = {(char *)words, size};
	struct msghdr header = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
	struct cmsghdr *part = CMSG_FIRSTHDR(&header);
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN(count * sizeof(int));
	header.msg_controllen = CMSG_SPACE(count * sizeof(int));
	memcpy(CMSG_DATA(part), descriptors, count * sizeof(int));
	return sendmsg(run->command, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* The one that was made first: it is the likeliest to be ready. */
static struct run *oldest_of(const struct kept *kept)
{
	struct run *found = NULL;
	for (struct run *run = server.runs; run; run = run->next)
		if (run->kept == kept)
			found = run;
	return found;
}

/* Its deadline, its peak and its CPU time begin here. count: 2 or 3 (enter.c). NULL: there is none. */
struct run *use_prepared(struct kept *kept, const char *words, size_t size, const int *descriptors, size_t count)
{
	for (struct run *run; size <= PREPARED_WORDS && (run = oldest_of(kept));) {
		if (!are_current(run->origins)) {
			drop_prepared(kept);
			break;
		}
		if (run->cage && !run->parked)
			measure_from_now(run->cage);
		server.records[run->slot].started = now();
		bool told = tell_command(run, words, size, descriptors, count);
		if (!told) {
			drop_one(run); /* it has died, or too many descriptors are on the way (unix(7), ETOOMANYREFS) */
			continue;
		}
		take_out(run);
		return run;
	}
	return NULL;
}
