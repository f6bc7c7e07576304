/* How a run begins: a prepared sandbox is told the command, or one is made for it. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lent lent;
enum { DEPTH = 64 << 10 }; /* bytes of our stack that may have been used below where a run begins */
enum { CHECK_INTERVAL = 1000000000 }; /* ns between two looks at what the views show; the host's own changes seldom */

static int take_slot(struct run *run)
{
	for (unsigned slot = 0; slot < MAX_RUNS; slot++)
		if (!server.taken[slot]) {
			server.taken[slot] = true;
			run->slot = slot;
			memset(&server.records[slot], 0, sizeof server.records[slot]);
			return 0;
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

/* Who is paused by signals (handle.c) may not be continued by a timer's: those that come late enough would always do so. */
static unsigned filter_options(const struct plan *plan)
{
	bool freezes = plan->cgroup2 && plan->reach == REACH_NAMESPACE;
	return plan->held && !freezes ? plan->seccomp_options & ~(unsigned)FILTER_TIMERS : plan->seccomp_options;
}

/* Everything that can be had before the clone: so that the child need not see the host at all. */
static int open_resources(const struct plan *plan, struct run *run, struct resources *resources, struct fault *fault)
{
	resources->view = resources->cgroup = -1;
	resources->ends = server.ends;
	resources->host_uid = run->host_uid;
	for (size_t i = 0; i < plan->n_mounts; i++)
		resources->trees[i] = -1;
	*fault = (struct fault){"terminal", "", 0};
	if (plan->terminal && run->host_uid && fchown(resources->descriptors[0], run->host_uid, (gid_t)-1) < 0)
		return -1; /* /dev/stdout is to be opened again by the run's user, and by nobody else */
	*fault = (struct fault){"seccomp", "", 0};
	resources->filter = plan->seccomp ? compile_filter(filter_options(plan)) : 0;
	if (resources->filter < 0)
		return -1;
	if (plan->view_key && (resources->view = find_view(plan, run->host_uid, &fault->object, &fault->step)) < 0)
		return -1;
	if (open_trees(plan, false, run->host_uid, resources->trees, &fault->object, &fault->step) < 0)
		return -1;
	fault->step = "cgroup";
	if ((plan->cgroup2 || plan->n_cgroup1) && !(run->cage = take_cage(plan, &fault->object)))
		goto failed;
	*fault = (struct fault){"launch", "", 0};
	if (run->command < 0 || (run->origins = note_origins(plan, false, resources->trees)))
		return 0;
failed:;
	int error = errno;
	close_trees(plan, resources);
	errno = error;
	return -1;
}

static int watch_reaper(struct run *run)
{
	run->reaper_source = (struct source){REAPER, .run = run};
	run->oom_source = (struct source){OOM, .run = run};
	if (watch_fd(run->pidfd, &run->reaper_source) < 0)
		return -1;
	int oom = run->cage ? cage_oom_fd(run->cage) : -1;
	return oom >= 0 ? watch_fd(oom, &run->oom_source) : 0;
}

/* What a reaper has no use for (enter.c, let_go_of_memory()). frame: where on our stack a run begins. */
static const struct borrowed_memory *note_memory(const struct plan *plan, const char *frame)
{
	static struct borrowed_memory memory;
	memory = (struct borrowed_memory){{{heap, sbrk(0)}, {&lent, &lent + 1}}};
	if (plan->n_cgroup1) /* a thread clones it, and nobody is on our stack */
		memory.parts[2].begin = frame - DEPTH, memory.parts[2].end = environ; /* which lies where it begins */
	return &memory;
}

/* command: as in struct resources; with one the descriptors come later. NULL: nothing has begun, and the fault says why. */
struct run *spawn_run(const struct plan *plan, const int *descriptors, int command, struct fault *fault)
{
	struct resources *resources = &lent.resources;
	struct run *run = new_run();
	*fault = (struct fault){"launch", "", ENOMEM};
	if (!run)
		return NULL;
	run->pidfd = -1;
	run->command = resources->command = command;
	resources->untied = false;
	resources->memory = note_memory(plan, __builtin_frame_address(0));
	if (take_slot(run) < 0) {
		fault->error = errno;
		release(run);
		return NULL;
	}
	run->host_uid = plan->host_uid_count ? plan->host_uid + run->slot % plan->host_uid_count : 0;
	struct record *record = &server.records[run->slot];
	if (command < 0)
		memcpy(resources->descriptors, descriptors, plan->n_targets * sizeof *descriptors);
	if (open_resources(plan, run, resources, fault) < 0) {
		fault->error = errno;
		goto failed;
	}
	if (run->cage)
		begin_measuring(run->cage); /* of a prepared one again when it is used: until then the last run's end is not taken for its */
	record->started = now();
	run->reaper = run->cage ? cage_spawn(run->cage, plan, resources, record, &run->pidfd) :
		spawn(plan, resources, record, &run->pidfd);
	close_trees(plan, resources);
	if (run->reaper < 0) {
		*fault = (struct fault){record->step, record->object, record->error};
		goto failed;
	}
	run->reach = plan->reach;
	run->next_look = INT64_MAX;
	run->next = server.runs;
	server.runs = run;
	if (watch_reaper(run) == 0)
		return run;
	*fault = (struct fault){"launch", "", errno}; /* without its events it could not be watched */
	run->told = true;
	kill_run(run);
	end_run(run, true);
	return NULL;
failed:
	if (run->cage)
		give_cage(run->cage);
	server.taken[run->slot] = false;
	release(run);
	return NULL;
}

/* What holds from the moment at which the command begins, and whom to tell of its end. */
static void begin(const struct plan *plan, struct run *run, struct channel *channel)
{
	run->channel = channel;
	channel->run = run;
	set_limits(plan, run);
	if (!run->interval || watch_samples() == 0)
		return;
	record_failure(&server.records[run->slot], "launch", "epoll", errno); /* nobody would look at it: it ends now */
	kill_run(run);
	end_run(run, true);
}

static void check_sources(void)
{
	static int64_t checked;
	int64_t time = now();
	if (time - checked < CHECK_INTERVAL)
		return;
	checked = time;
	if (check_views())
		drop_all_prepared();
}

/* Where one descriptor is missing it is standard input's, and that is /dev/null: opened for each run, as for prepared ones (enter.c). */
static struct run *spawn_with(const struct plan *plan, const int *descriptors, size_t count, struct fault *fault)
{
	int all[MAX_DESCRIPTORS];
	if (count == plan->n_targets)
		return spawn_run(plan, descriptors, -1, fault);
	all[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (all[0] < 0) {
		*fault = (struct fault){"descriptors", "/dev/null", errno};
		return NULL;
	}
	memcpy(all + 1, descriptors, count * sizeof *all);
	struct run *run = spawn_run(plan, all, -1, fault);
	close(all[0]);
	return run;
}

/* The channel has a run now, or has been told why not. */
static void start(struct kept *kept, const char *words, size_t size, struct channel *channel, const int *descriptors, size_t count)
{
	struct fault fault;
	check_mounts();
	check_sources();
	note_use(kept);
	struct run *run = use_prepared(kept, words, size, descriptors, count);
	if (!run)
		run = spawn_with(&kept->plan, descriptors, count, &fault);
	if (run)
		begin(&kept->plan, run, channel);
	else
		tell_failure(channel->socket, fault.step, fault.object, fault.error);
}

/* Of the three streams standard input, which is the first, may be missing: then it is to be opened here. */
static bool are_descriptors_of(const struct plan *plan, size_t count)
{
	return count == plan->n_targets || (count == 2 && plan->n_targets == 3 && plan->targets[0] == 0 && !plan->terminal);
}

/* As start(). The descriptors stay the caller's to close. */
void launch(const char *words, size_t size, struct channel *channel, const int *descriptors, size_t count)
{
	const char *why = "";
	int socket = channel->socket;
	struct kept *kept = keep_plan(words, size, &why);
	if (!kept) {
		tell_failure(socket, "words", why, errno);
		return;
	}
	words += kept->size;
	size -= kept->size;
	size_t most = count_words(words, size) + 1;
	char **arguments = most <= LENT_ARGUMENTS ? lent.arguments : malloc(most * sizeof *arguments);
	if (!arguments)
		tell_failure(socket, "words", "", ENOMEM);
	else if (parse_command(words, size, arguments, &kept->plan.command, &why) < 0)
		tell_failure(socket, "words", why, EINVAL);
	else if (!are_descriptors_of(&kept->plan, count))
		tell_failure(socket, "words", "descriptors named and sent differ", EINVAL);
	else
		start(kept, words, size, channel, descriptors, count);
	kept->plan.command = (struct command){0}; /* it borrows from what goes now */
	if (arguments != lent.arguments)
		free(arguments);
	forget_if_large(kept);
}
