/* What time does to runs: their deadlines, the samples where no cgroup measures, and strays that are not dead yet. */
#define _GNU_SOURCE
#include "serve.h"

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	PAUSE_INTERVAL = 20000000, /* ns between two times at which a paused tree is stopped again */
	PEAK_INTERVAL = 10000000, /* ns between two looks where a cgroup keeps no peak */
	SOONEST = 2000000, /* ns between two looks */
	FASTEST = 10,      /* bytes per ns and processor: what one can fill of huge pages */
};

void hold(struct run *run, bool stop)
{
	stop |= run->paused;
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

long processors(void)
{
	static long count;
	if (!count)
		count = sysconf(_SC_NPROCESSORS_ONLN);
	return count > 0 ? count : 1;
}

/* When could a limit be reached at the soonest? All processors could be at it. */
static int64_t until_limit(int64_t left, int64_t rate)
{
	int64_t wait = left / (rate * processors());
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

/* The command began later than it was asked for: its time is counted from there. */
static bool has_more_time(struct run *run, int64_t time)
{
	int64_t late = server.records[run->slot].started - run->born;
	if (late <= 0 || time >= run->deadline + late)
		return false;
	run->deadline += late;
	run->born += late;
	return true;
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
	if (run->dismissal && time >= run->dismissal)
		dismiss(run);
	if (run->killed)
		return;
	if (run->grace_end && time >= run->grace_end) {
		kill_run(run);
		return;
	}
	if (!run->terminated && run->deadline && time >= run->deadline && !has_more_time(run, time)) {
		run->timed_out = true;
		end_gently(run);
		return;
	}
	if (run->next_look > time)
		return;
	run->next_look = run->interval ? time + PATIENCE : INT64_MAX;
	if (run->paused) { /* something inside may have continued itself, or another */
		hold(run, true);
		run->next_look = time + PAUSE_INTERVAL;
	}
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
	answer(run);
	if (run->cpu_limit)
		check_cpu_time(run, time);
}

void on_samples(void)
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

int wait_milliseconds(void)
{
	int64_t soonest = next_look_at_prepared(), time = now();
	for (struct run *run = server.runs; run; run = run->next) {
		if (run->last_chance && run->last_chance < soonest)
			soonest = run->last_chance;
		if (run->ending && run->next_look < soonest)
			soonest = run->next_look;
		if (run->dismissal && run->dismissal < soonest)
			soonest = run->dismissal;
		if (run->killed)
			continue;
		if (!run->terminated && run->deadline && run->deadline < soonest)
			soonest = run->deadline;
		if (run->grace_end && run->grace_end < soonest)
			soonest = run->grace_end;
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

void look_at_all(void)
{
	int64_t time = now();
	for (struct run *run = server.runs, *next; run; run = next) {
		next = run->next; /* it may be over */
		look(run, time);
	}
	drop_idle(time);
}

/* The sampler is started when the first run needs it. */
int watch_samples(void)
{
	static bool watched;
	int event = start_sampler();
	server.samples = (struct source){.kind = SAMPLES};
	if (!watched && event >= 0)
		watched = watch_fd(event, &server.samples) == 0;
	return watched ? 0 : -1;
}

void set_limits(const struct plan *plan, struct run *run)
{
	run->born = run->last_look = now();
	run->grace = (int64_t)plan->grace;
	run->deadline = plan->timeout ? run->born + (int64_t)plan->timeout : 0;
	run->cpu_limit = (int64_t)plan->cpu_time;
	run->interval = (int64_t)plan->sample_interval;
	run->watch.reaper = run->reaper;
	run->watch.uid = plan->namespaces & CLONE_NEWUSER || !plan->host_uid_count ? 0 : run->host_uid;
	run->watch.private_tmp = plan->namespaces & CLONE_NEWNS;
	run->watch.limit = (int64_t)plan->sampled_memory;
	run->cpu_permille = (int64_t)plan->sampled_cpu_percent;
	run->task_limit = (int64_t)plan->sampled_tasks;
	run->next_look = run->interval ? run->born + run->interval :
		run->cpu_limit ? run->born + until_cpu_limit(run, 0) : INT64_MAX;
	run->wants_looks = run->cage && cage_wants_looks(run->cage);
	if (run->wants_looks && run->next_look > run->born + PEAK_INTERVAL)
		run->next_look = run->born + PEAK_INTERVAL;
}
