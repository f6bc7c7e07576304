/*
 * Cages: sets of cgroups, each used by one run at a time, made when needed and kept for the next run.
 *
 * Joining a cgroup by writing its cgroup.procs (or tasks) waits for an RCU grace period, 9 ms after a rest. So no run does
 * that. With cgroup v2 a run is born inside (CLONE_INTO_CGROUP). With v1 each cage has a nest: a thread of the launcher
 * that joined the cage's cgroups once, and clones the runs; they inherit its cgroups (cgroups(7), cgroup-v1/cgroups.rst).
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KEEP_IDLE = 64, NAME = 64, PATH_SIZE = 4096 };
enum job { SPAWN, RESET, END };

struct place { char controller[24]; char *parent; int directory; };

struct cage {
	struct cage *next;
	bool v2, busy;
	char name[NAME];
	struct place places[MAX_CONTROLLERS];
	size_t n_places;
	char *settings; /* as last written */
	int oom; /* eventfd that v1 signals at an out-of-memory */
	struct cage_usage base; /* counters at the start of the run: v1's are not reset */
	/* the nest */
	pthread_t thread;
	bool has_nest;
	sem_t wake, ready;
	enum job job;
	int error;
	const struct plan *plan;
	const struct resources *resources;
	struct record *record;
	pid_t pid;
	int pidfd;
};

static struct cage *cages;
static unsigned serial;

static const struct place *place_of(const struct cage *cage, const char *controller)
{
	for (size_t i = 0; i < cage->n_places; i++)
		if (cage->v2 || !strncmp(controller, cage->places[i].controller, strlen(cage->places[i].controller)))
			return &cage->places[i];
	return NULL;
}

static ssize_t read_file(const struct cage *cage, const char *controller, const char *file, char *text, size_t size)
{
	const struct place *place = place_of(cage, controller);
	int fd = place ? openat(place->directory, file, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return -1;
	ssize_t count = read(fd, text, size - 1);
	close(fd);
	if (count >= 0)
		text[count] = '\0';
	return count;
}

static int64_t read_number(const struct cage *cage, const char *controller, const char *file)
{
	char text[64];
	return read_file(cage, controller, file, text, sizeof text) > 0 ? strtoll(text, NULL, 10) : -1;
}

/* A file of "key value" lines. */
static int64_t read_key(const struct cage *cage, const char *controller, const char *file, const char *key)
{
	char text[4096];
	size_t size = strlen(key);
	if (read_file(cage, controller, file, text, sizeof text) <= 0)
		return -1;
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, size) && line[size] == ' ')
			return strtoll(line + size, NULL, 10);
	}
	return -1;
}

static int open_place(struct cage *cage, struct place *place)
{
	char path[PATH_SIZE];
	snprintf(path, sizeof path, "%s/%s", place->parent, cage->name);
	if (mkdir(path, 0755) < 0)
		return -1;
	place->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return place->directory < 0 ? -1 : 0;
}

static void close_place(const struct cage *cage, struct place *place)
{
	char path[PATH_SIZE];
	if (place->directory < 0)
		return;
	close(place->directory);
	place->directory = -1;
	snprintf(path, sizeof path, "%s/%s", place->parent, cage->name);
	for (int tries = 0; rmdir(path) < 0 && errno == EBUSY && tries < 1000; tries++)
		sched_yield(); /* the last task of it is on its way out of the kernel */
}

/* --- the nest of v1 --- */

static int join(struct cage *cage)
{
	char tid[32];
	snprintf(tid, sizeof tid, "%ld", syscall(SYS_gettid));
	for (size_t i = 0; i < cage->n_places; i++)
		if (write_text(cage->places[i].directory, "tasks", tid) < 0)
			return -1;
	return unshare(CLONE_FS); /* setns(2) to a mount namespace wants a root and working directory of our own */
}

/* Page cache that the last run was charged for would count as the next one's peak. */
static void reset(struct cage *cage)
{
	enum { SMALL = 1 << 20 };
	const struct place *memory = place_of(cage, "memory");
	if (!memory)
		return;
	if (read_number(cage, "memory", "memory.usage_in_bytes") > SMALL)
		write_text(memory->directory, "memory.force_empty", "0");
}

static void *nest(void *argument)
{
	struct cage *cage = argument;
	cage->error = join(cage) < 0 ? errno : 0;
	sem_post(&cage->ready);
	while (!cage->error) {
		while (sem_wait(&cage->wake) < 0)
			;
		if (cage->job == END)
			break;
		if (cage->job == SPAWN)
			cage->pid = spawn(cage->plan, cage->resources, cage->record, &cage->pidfd);
		else
			reset(cage);
		sem_post(&cage->ready);
	}
	return NULL;
}

static void await(sem_t *semaphore)
{
	while (sem_wait(semaphore) < 0)
		;
}

static int start_nest(struct cage *cage)
{
	pthread_attr_t attributes;
	sem_init(&cage->wake, 0, 0);
	sem_init(&cage->ready, 0, 0);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	int error = pthread_create(&cage->thread, &attributes, nest, cage);
	pthread_attr_destroy(&attributes);
	if (error) {
		errno = error;
		return -1;
	}
	cage->has_nest = true;
	await(&cage->ready);
	errno = cage->error;
	return cage->error ? -1 : 0;
}

static int watch_oom(struct cage *cage)
{
	char text[64];
	const struct place *memory = place_of(cage, "memory");
	if (!memory)
		return 0;
	int control = openat(memory->directory, "memory.oom_control", O_RDONLY | O_CLOEXEC);
	if (control < 0)
		return -1;
	cage->oom = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	snprintf(text, sizeof text, "%d %d", cage->oom, control);
	int result = write_text(memory->directory, "cgroup.event_control", text), error = errno;
	close(control);
	errno = error;
	return result;
}

static void destroy(struct cage *cage)
{
	if (cage->has_nest) {
		if (!cage->error) {
			cage->job = END;
			sem_post(&cage->wake);
		}
		pthread_join(cage->thread, NULL);
	}
	if (cage->oom >= 0)
		close(cage->oom);
	for (size_t i = 0; i < cage->n_places; i++) {
		close_place(cage, &cage->places[i]);
		free(cage->places[i].parent);
	}
	free(cage->settings);
	free(cage);
}

static struct cage *make(const struct plan *plan)
{
	struct cage *cage = calloc(1, sizeof *cage);
	if (!cage)
		return NULL;
	cage->v2 = plan->cgroup2;
	cage->oom = -1;
	snprintf(cage->name, sizeof cage->name, "proc-sandbox-%d-%u", getpid(), serial++);
	cage->n_places = cage->v2 ? 1 : plan->n_cgroup1;
	for (size_t i = 0; i < cage->n_places; i++) {
		struct place *place = &cage->places[i];
		place->directory = -1;
		place->parent = strdup(cage->v2 ? plan->cgroup2 : plan->cgroup1[i].value);
		snprintf(place->controller, sizeof place->controller, "%s", cage->v2 ? "" : plan->cgroup1[i].name);
	}
	for (size_t i = 0; i < cage->n_places; i++)
		if (!cage->places[i].parent || open_place(cage, &cage->places[i]) < 0)
			goto failed;
	if (!cage->v2 && (watch_oom(cage) < 0 || start_nest(cage) < 0))
		goto failed;
	return cage;
failed:;
	int error = errno;
	destroy(cage);
	errno = error;
	return NULL;
}

static bool fits(const struct cage *cage, const struct plan *plan)
{
	if (cage->v2 != !!plan->cgroup2)
		return false;
	if (cage->v2)
		return !strcmp(cage->places[0].parent, plan->cgroup2);
	if (cage->n_places != plan->n_cgroup1)
		return false;
	for (size_t i = 0; i < cage->n_places; i++)
		if (strcmp(cage->places[i].controller, plan->cgroup1[i].name) ||
		    strcmp(cage->places[i].parent, plan->cgroup1[i].value))
			return false;
	return true;
}

static int write_settings(struct cage *cage, const struct plan *plan, const char **object)
{
	char all[2048] = "";
	size_t size = 0;
	for (size_t i = 0; i < plan->n_settings; i++)
		size += (size_t)snprintf(all + size, size < sizeof all ? sizeof all - size : 0, "%s=%s\n",
					 plan->settings[i].name, plan->settings[i].value);
	if (size < sizeof all && cage->settings && !strcmp(all, cage->settings))
		return 0;
	free(cage->settings);
	cage->settings = NULL; /* so a failure half-way is not taken for what was written */
	for (size_t i = 0; i < plan->n_settings; i++) {
		const struct place *place = place_of(cage, plan->settings[i].name);
		*object = plan->settings[i].name;
		if (!place) {
			errno = ENODEV;
			return -1;
		}
		if (write_text(place->directory, plan->settings[i].name, plan->settings[i].value) < 0)
			return -1;
	}
	if (size < sizeof all)
		cage->settings = strdup(all);
	return 0;
}

static void read_counters(const struct cage *cage, struct cage_usage *usage)
{
	if (cage->v2) {
		usage->user = read_key(cage, "", "cpu.stat", "user_usec") * 1000;
		usage->system = read_key(cage, "", "cpu.stat", "system_usec") * 1000;
		usage->throttled = read_key(cage, "", "cpu.stat", "throttled_usec") * 1000;
		usage->peak = read_number(cage, "", "memory.peak");
		usage->refused_forks = read_key(cage, "", "pids.events", "max");
	} else {
		usage->user = read_number(cage, "cpuacct", "cpuacct.usage_user");
		usage->system = read_number(cage, "cpuacct", "cpuacct.usage_sys");
		usage->throttled = read_key(cage, "cpu", "cpu.stat", "throttled_time");
		usage->peak = read_number(cage, "memory", "memory.memsw.max_usage_in_bytes");
		if (usage->peak < 0)
			usage->peak = read_number(cage, "memory", "memory.max_usage_in_bytes");
		usage->refused_forks = read_key(cage, "pids", "pids.events", "max");
	}
	usage->oom_kills = cage_oom_kills(cage);
}

static void reset_peak(struct cage *cage)
{
	const struct place *memory = cage->v2 ? NULL : place_of(cage, "memory");
	uint64_t count;
	if (!memory)
		return;
	write_text(memory->directory, "memory.max_usage_in_bytes", "0");
	write_text(memory->directory, "memory.memsw.max_usage_in_bytes", "0"); /* absent without swap accounting */
	while (cage->oom >= 0 && read(cage->oom, &count, sizeof count) > 0)
		; /* what the last run left */
}

struct cage *take_cage(const struct plan *plan, const char **object)
{
	struct cage *cage = cages;
	while (cage && (cage->busy || !fits(cage, plan)))
		cage = cage->next;
	if (cage && cage->has_nest && sem_trywait(&cage->ready) < 0)
		await(&cage->ready); /* its reset is not quite done */
	if (!cage) {
		*object = plan->cgroup2 ? plan->cgroup2 : plan->cgroup1[0].value;
		cage = make(plan);
		if (!cage)
			return NULL;
		cage->next = cages;
		cages = cage;
	}
	cage->busy = true;
	if (write_settings(cage, plan, object) < 0) {
		int error = errno;
		give_cage(cage);
		errno = error;
		return NULL;
	}
	reset_peak(cage);
	read_counters(cage, &cage->base);
	return cage;
}

pid_t cage_spawn(struct cage *cage, const struct plan *plan, struct resources *resources, struct record *record, int *pidfd)
{
	if (cage->v2) {
		resources->cgroup = cage->places[0].directory;
		return spawn(plan, resources, record, pidfd);
	}
	cage->job = SPAWN;
	cage->plan = plan;
	cage->resources = resources;
	cage->record = record;
	cage->pidfd = -1;
	sem_post(&cage->wake);
	await(&cage->ready);
	*pidfd = cage->pidfd;
	return cage->pid;
}

int cage_oom_fd(const struct cage *cage)
{
	return cage->oom;
}

int64_t cage_cpu(const struct cage *cage)
{
	if (cage->v2)
		return read_key(cage, "", "cpu.stat", "usage_usec") * 1000;
	return read_number(cage, "cpuacct", "cpuacct.usage") - cage->base.user - cage->base.system;
}

int64_t cage_oom_kills(const struct cage *cage)
{
	if (cage->v2)
		return read_key(cage, "", "memory.events", "oom_kill");
	int64_t kills = read_key(cage, "memory", "memory.oom_control", "oom_kill");
	return kills - cage->base.oom_kills;
}

void cage_kill(const struct cage *cage)
{
	if (cage->v2)
		write_text(cage->places[0].directory, "cgroup.kill", "1"); /* since 5.14; the death of pid 1 does it too */
}

static int64_t since(int64_t value, int64_t base)
{
	return value < 0 || base < 0 ? -1 : value - base;
}

void cage_usage(struct cage *cage, struct cage_usage *usage)
{
	struct cage_usage *base = &cage->base;
	read_counters(cage, usage); /* oom_kills comes relative already */
	usage->user = since(usage->user, base->user);
	usage->system = since(usage->system, base->system);
	usage->throttled = since(usage->throttled, base->throttled);
	usage->refused_forks = since(usage->refused_forks, base->refused_forks);
}

static void remove_from_list(struct cage *cage)
{
	struct cage **link = &cages;
	while (*link && *link != cage)
		link = &(*link)->next;
	if (*link)
		*link = cage->next;
}

void give_cage(struct cage *cage)
{
	int idle = 0;
	for (struct cage *other = cages; other; other = other->next)
		idle += !other->busy;
	if (cage->v2 || idle >= KEEP_IDLE) { /* v2: counters can't be reset before 6.12, a new one costs 80 us */
		remove_from_list(cage);
		destroy(cage);
		return;
	}
	cage->busy = false;
	memset(&cage->base, 0, sizeof cage->base);
	cage->job = RESET;
	sem_post(&cage->wake);
}

void remove_cages(void)
{
	while (cages) {
		struct cage *cage = cages;
		cages = cage->next;
		if (!cage->busy && cage->has_nest)
			await(&cage->ready);
		destroy(cage);
	}
}
