/*
 * Cages: sets of cgroups, each used by one run at a time, made when needed and kept for the next run.
 *
 * Joining a cgroup by writing its cgroup.procs (or tasks) waits for an RCU grace period, 9 ms after a rest. So no run does
 * that. With cgroup v2 a run is born inside (CLONE_INTO_CGROUP). With v1 each cage has a nest: a thread of the launcher
 * that joined the cage's cgroups once, and clones the runs; they inherit its cgroups (cgroups(7), cgroup-v1/cgroups.rst). Where very
 * many runs are alive it ends after its first one, and the cage with that run.
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
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef NESTS
#define NESTS 128 /* in the tests none is kept: -1 */
#endif
enum { KEEP_IDLE = 16, NAME = 64, PATH_SIZE = 4096 };
enum job { SPAWN, RESET, END };

/* What is read of a cage: the files stay open, for the opening costs more than the reading. */
enum meter {
	CPU_USER, CPU_SYSTEM, CPU, THROTTLED, PEAK, PEAK_SWAP, FORKS, OOM_KILLS, HITS, LIMIT, USAGE, FILES,
	DISK_READ, DISK_WRITTEN, CPU_PRESSURE, MEMORY_PRESSURE, IO_PRESSURE, METERS
};
struct gauge { const char *controller, *file, *key; int64_t factor; int flags; bool sum; };

#ifndef MEMORY_PEAK
#define MEMORY_PEAK "memory.peak" /* since 5.19; the tests name another, to do without */
#endif

/* Documentation/admin-guide/cgroup-v1: cpuacct.rst, memory.rst, pids.rst; scheduler/sched-bwc.rst */
static const struct gauge GAUGES_V1[METERS] = {
	[CPU] = {"cpuacct", "cpuacct.usage", NULL, 1, O_RDONLY},
	[THROTTLED] = {"cpu", "cpu.stat", "throttled_time", 1, O_RDONLY},
	[PEAK] = {"memory", "memory.max_usage_in_bytes", NULL, 1, O_RDWR},
	[PEAK_SWAP] = {"memory", "memory.memsw.max_usage_in_bytes", NULL, 1, O_RDWR},
	[FORKS] = {"pids", "pids.events", "max", 1, O_RDONLY},
	[OOM_KILLS] = {"memory", "memory.oom_control", "oom_kill", 1, O_RDONLY},
	[LIMIT] = {"memory", "memory.limit_in_bytes", NULL, 1, O_RDONLY},
	[USAGE] = {"memory", "memory.usage_in_bytes", NULL, 1, O_RDONLY},
	[FILES] = {"memory", "memory.stat", "shmem", 1, O_RDONLY}, /* on a tmpfs */
};
/* Documentation/admin-guide/cgroup-v2.rst */
static const struct gauge GAUGES_V2[METERS] = {
	[CPU_USER] = {"", "cpu.stat", "user_usec", 1000, O_RDONLY},
	[CPU_SYSTEM] = {"", "cpu.stat", "system_usec", 1000, O_RDONLY},
	[CPU] = {"", "cpu.stat", "usage_usec", 1000, O_RDONLY},
	[THROTTLED] = {"", "cpu.stat", "throttled_usec", 1000, O_RDONLY},
	[PEAK] = {"", MEMORY_PEAK, NULL, 1, O_RDWR}, /* since 6.12 it can be reset */
	[FORKS] = {"", "pids.events", "max", 1, O_RDONLY},
	[OOM_KILLS] = {"", "memory.events", "oom_kill", 1, O_RDONLY},
	[HITS] = {"", "memory.events", "oom", 1, O_RDONLY}, /* of this cgroup's limit; oom_kill counts any limit's victims */
	[USAGE] = {"", "memory.current", NULL, 1, O_RDONLY},
	[FILES] = {"", "memory.stat", "shmem", 1, O_RDONLY},
	[DISK_READ] = {"", "io.stat", "rbytes", 1, O_RDONLY, .sum = true}, /* a line for each device */
	[DISK_WRITTEN] = {"", "io.stat", "wbytes", 1, O_RDONLY, .sum = true},
	/* Documentation/accounting/psi.rst: the first line is "some", at least one task waited; in microseconds */
	[CPU_PRESSURE] = {"", "cpu.pressure", "total", 1000, O_RDONLY},
	[MEMORY_PRESSURE] = {"", "memory.pressure", "total", 1000, O_RDONLY},
	[IO_PRESSURE] = {"", "io.pressure", "total", 1000, O_RDONLY},
};
enum { UNOPENED = 0, MISSING = -1 }; /* of an open meter: its descriptor, which is never 0 */

struct place { char controller[64]; char *parent; int directory; };

struct cage {
	struct cage *next;
	bool v2, busy, resetting, spoilt;
	bool untouched; /* just made, so that everything counts from 0 */
	uint64_t given; /* when, in order, it was last given back */
	bool limits_disks, frozen;
	char name[NAME];
	struct place places[MAX_CONTROLLERS];
	size_t n_places;
	char *settings; /* as last written */
	int oom; /* eventfd that v1 signals at an out-of-memory */
	int meters[METERS];
	struct cage_usage base; /* counters at the start of the run: v1's are not reset */
	struct cage_usage last; /* and at the end of the last one */
	bool counted; /* they were read then */
	int64_t seen; /* the most memory that was seen, where the kernel keeps no peak */
	/* the nest */
	pthread_t thread;
	pid_t thread_id;
	int stack;
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
static struct pool pool = {sizeof(struct cage), NULL};
static unsigned serial;

/* "cpu.cfs_quota_us" is the controller "cpu", which may share its place with others: "cpuacct,cpu". */
static bool is_listed(const char *controllers, const char *name)
{
	size_t size = strcspn(name, ".");
	for (const char *at = controllers; *at; at += strspn(at, ",")) {
		size_t length = strcspn(at, ",");
		if (length == size && !memcmp(at, name, size))
			return true;
		at += length;
	}
	return false;
}

static const struct place *place_of(const struct cage *cage, const char *name)
{
	for (size_t i = 0; i < cage->n_places; i++)
		if (cage->v2 || is_listed(cage->places[i].controller, name))
			return &cage->places[i];
	return NULL;
}

static const struct gauge *gauge_of(const struct cage *cage, enum meter meter)
{
	return &(cage->v2 ? GAUGES_V2 : GAUGES_V1)[meter];
}

static int open_meter(struct cage *cage, enum meter meter)
{
	const struct gauge *gauge = gauge_of(cage, meter);
	if (cage->meters[meter] == UNOPENED) {
		const struct place *place = gauge->file ? place_of(cage, gauge->controller) : NULL;
		int fd = place ? openat(place->directory, gauge->file, gauge->flags | O_CLOEXEC) : MISSING;
		if (fd < 0 && place && gauge->flags != O_RDONLY)
			fd = openat(place->directory, gauge->file, O_RDONLY | O_CLOEXEC);
		cage->meters[meter] = fd;
	}
	return cage->meters[meter];
}

/* Where lines hold "key value" or words "key=value": the first one's value, or of all lines together; -1: not there. */
static int64_t find_value(const char *text, const char *key, bool sum)
{
	size_t size = strlen(key);
	int64_t total = sum ? 0 : -1;
	for (const char *at = text; *at; at += strcspn(at, " \n"), at += *at != '\0') {
		if (strncmp(at, key, size) || (at[size] != ' ' && at[size] != '='))
			continue;
		int64_t value = strtoll(at + size + 1, NULL, 10);
		if (!sum)
			return value;
		total += value;
	}
	return total;
}

/* What a file says; of files with several values the last one that was read is kept, for they are asked for one after another. */
struct reading { const char *file; ssize_t size; char text[16384]; };

/* The event loop's: in pages of its own that no child gets. Nests, which go on beside it, have one on their stacks. */
static struct reading *begin_reading(void)
{
	static struct { _Alignas(4096) struct reading reading; } pages;
	static bool kept;
	if (!kept) {
		keep_from_children(&pages, sizeof pages);
		kept = true;
	}
	pages.reading.file = NULL;
	return &pages.reading;
}

/* The value of a file with one number, or of a key; -1: not there, or more than can be read at once. */
static int64_t read_next(struct cage *cage, enum meter meter, struct reading *reading)
{
	const struct gauge *gauge = gauge_of(cage, meter);
	if (!gauge->file)
		return -1;
	if (!reading->file || strcmp(reading->file, gauge->file)) {
		int fd = open_meter(cage, meter);
		reading->file = gauge->file;
		reading->size = fd < 0 ? -1 : pread(fd, reading->text, sizeof reading->text - 1, 0);
	}
	if (reading->size < 0 || (!reading->size && !gauge->sum) || reading->size == sizeof reading->text - 1)
		return -1;
	reading->text[reading->size] = '\0';
	int64_t value = gauge->key ? find_value(reading->text, gauge->key, gauge->sum) : strtoll(reading->text, NULL, 10);
	return value < 0 ? -1 : value * gauge->factor;
}

static int64_t read_meter(struct cage *cage, enum meter meter)
{
	return read_next(cage, meter, begin_reading());
}

static void close_meters(struct cage *cage)
{
	for (int meter = 0; meter < METERS; meter++)
		if (cage->meters[meter] > 0)
			close(cage->meters[meter]);
}

static int open_place(struct cage *cage, struct place *place)
{
	char path[PATH_SIZE];
	snprintf(path, sizeof path, "%s/%s", place->parent, cage->name);
	if (mkdir(path, 0755) < 0)
		return -1;
	place->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* By the lock others see that it is in use, also those to whom our process id means nothing (containers). */
	return place->directory < 0 ? -1 : flock(place->directory, LOCK_SH | LOCK_NB);
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

/*
 * Page cache that the last run was charged for would count as the next one's peak. Emptying takes longer than a small command, and
 * 2 or 3 MiB are what the kernel itself keeps for the last moments of it: that goes by itself. What lies on a tmpfs does not, and a
 * limit of the next run's would be met too early.
 */
static bool needs_reset(struct cage *cage, struct reading *reading)
{
	enum { SMALL = 4 << 20, SMALL_FILES = 128 << 10 };
	return read_next(cage, USAGE, reading) > SMALL || read_next(cage, FILES, reading) > SMALL_FILES;
}

/* What can't be taken back (files on a tmpfs of the host's) would be the next run's burden: such a cage is not used again. */
static void reset(struct cage *cage)
{
	struct reading reading;
	const struct place *memory = place_of(cage, "memory");
	if (memory)
		write_text(memory->directory, "memory.force_empty", "0");
	reading.file = NULL;
	cage->spoilt = needs_reset(cage, &reading);
}

static void *nest(void *argument)
{
	struct cage *cage = argument;
	cage->error = join(cage) < 0 || begin_life() < 0 ? errno : 0;
	cage->thread_id = (pid_t)syscall(SYS_gettid);
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
	end_life();
	return NULL;
}

static void await(sem_t *semaphore)
{
	while (sem_wait(semaphore) < 0)
		;
}

/*
 * The threads' stacks lie side by side in one mapping: a clone copies mappings one by one, and stacks of libc's are two each. There
 * is no guard between them; who might use more than a sixth of one is not called from here.
 */
enum { STACK = 256 << 10, STACKS = NESTS + KEEP_IDLE };
static char (*stacks)[STACK];
static bool stack_taken[STACKS];

static int take_stack(void)
{
	if (!stacks) {
		void *place = mmap(NULL, STACKS * sizeof *stacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		stacks = place == MAP_FAILED ? NULL : place;
	}
	for (int i = 0; stacks && i < STACKS; i++)
		if (!stack_taken[i]) {
			stack_taken[i] = true;
			return i;
		}
	return -1;
}

static void give_stack(int stack)
{
	if (stack < 0)
		return;
	madvise(stacks[stack], STACK, MADV_DONTNEED);
	stack_taken[stack] = false;
}

static int start_nest(struct cage *cage)
{
	pthread_attr_t attributes;
	sem_init(&cage->wake, 0, 0);
	sem_init(&cage->ready, 0, 0);
	pthread_attr_init(&attributes);
	cage->stack = take_stack();
	if (cage->stack >= 0)
		pthread_attr_setstack(&attributes, stacks[cage->stack], STACK);
	else
		pthread_attr_setstacksize(&attributes, STACK);
	int error = pthread_create(&cage->thread, &attributes, nest, cage);
	pthread_attr_destroy(&attributes);
	if (error) {
		give_stack(cage->stack);
		errno = error;
		return -1;
	}
	cage->has_nest = true;
	await(&cage->ready);
	errno = cage->error;
	return cage->error ? -1 : 0;
}

static void end_nest(struct cage *cage)
{
	if (!cage->error) {
		cage->job = END;
		sem_post(&cage->wake);
	}
	pthread_join(cage->thread, NULL);
	give_stack(cage->stack);
	cage->has_nest = false;
}

/*
 * Where very many runs are alive no thread is kept for each. It leaves before the run is tied to who made it, for a thread's children
 * are killed at its end (PR_SET_PDEATHSIG); its place in the cgroup, for which the limit has room, must not become the run's.
 */
static bool has_too_many_nests(void)
{
	int busy = 0;
	for (const struct cage *cage = cages; cage; cage = cage->next)
		busy += cage->busy && cage->has_nest;
	return busy > NESTS;
}

static int take_place_back(struct cage *cage, const struct plan *plan)
{
	char text[32];
	for (size_t i = 0; i < plan->n_settings; i++) {
		const struct setting *setting = &plan->settings[i];
		if (strcmp(setting->name, "pids.max") || !strcmp(setting->value, "max"))
			continue;
		const struct place *place = place_of(cage, setting->name);
		snprintf(text, sizeof text, "%lld", strtoll(setting->value, NULL, 10) - 1);
		if (!place || write_text(place->directory, setting->name, text) < 0)
			return -1;
	}
	return 0;
}

/*
 * Who waits by pthread_join(3) is woken where a thread gives up its memory, and its children get another parent, and their death
 * signal, after that: then its number is nobody's. No event tells of it, and it is a matter of microseconds.
 */
static void await_parting(pid_t thread)
{
	while (syscall(SYS_tgkill, getpid(), thread, 0) == 0)
		sched_yield();
}

static void leave_nest(struct cage *cage, const struct plan *plan, struct resources *resources, struct record *record)
{
	end_nest(cage);
	if (cage->pid < 0)
		return;
	await_parting(cage->thread_id); /* who is admitted asks for its parent's death signal */
	if (take_place_back(cage, plan) == 0) {
		admit(plan, resources, record, cage->pid);
	} else {
		record_failure(record, "cgroup", "pids.max", errno);
		refuse(record);
	}
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
	if (cage->has_nest)
		end_nest(cage);
	if (cage->oom >= 0)
		close(cage->oom);
	close_meters(cage);
	for (size_t i = 0; i < cage->n_places; i++) {
		close_place(cage, &cage->places[i]);
		free(cage->places[i].parent);
	}
	free(cage->settings);
	give_back(&pool, cage);
}

static struct cage *make_once(const struct plan *plan)
{
	struct cage *cage = take_from(&pool);
	if (!cage)
		return NULL;
	cage->v2 = plan->cgroup2;
	cage->untouched = true;
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

/* Again where somebody took a new one for a dead launcher's, in the moment before it was locked. */
static struct cage *make(const struct plan *plan)
{
	enum { TRIES = 3 };
	struct cage *cage = NULL;
	for (int i = 0; i < TRIES && !cage && (i == 0 || errno == ENOENT || errno == EWOULDBLOCK); i++)
		cage = make_once(plan);
	return cage;
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

static const char *disk_limits(const struct cage *cage)
{
	return cage->v2 ? "io.max" : "blkio.throttle.read_bps_device"; /* lines "MAJOR:MINOR LIMITS" */
}

/*
 * Whoever waits for a disk is not killed before the disk has answered, and a limit lets one request of many megabytes wait
 * for minutes. So what is killed has no limit any more; nor has who comes next: another disk may be there by that number.
 */
static void lift_disk_limits(struct cage *cage)
{
	const char *name = disk_limits(cage);
	const struct place *place = cage->limits_disks ? place_of(cage, name) : NULL;
	int fd = place ? openat(place->directory, name, O_RDONLY | O_CLOEXEC) : -1;
	FILE *limits = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned major, minor;
	char line[256], text[64];
	if (!limits) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (fgets(line, sizeof line, limits))
		if (sscanf(line, "%u:%u", &major, &minor) == 2) {
			snprintf(text, sizeof text, "%u:%u %s", major, minor, cage->v2 ? "rbps=max wbps=max" : "0");
			write_text(place->directory, name, text);
		}
	fclose(limits);
	cage->limits_disks = false;
	free(cage->settings);
	cage->settings = NULL; /* they are not as written any more */
}

static int write_settings(struct cage *cage, const struct plan *plan, const char **object)
{
	char all[2048] = "";
	size_t size = 0;
	for (size_t i = 0; i < plan->n_settings && size < sizeof all; i++)
		size += (size_t)snprintf(all + size, sizeof all - size, "%s=%s\n", plan->settings[i].name,
					 plan->settings[i].value);
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
		cage->limits_disks |= !strcmp(plan->settings[i].name, disk_limits(cage));
	}
	if (size < sizeof all)
		cage->settings = strdup(all);
	return 0;
}

/* What counts on from run to run. Neighbours share a file in v2. */
static void read_cpu(struct cage *cage, struct cage_usage *usage)
{
	struct reading *reading = begin_reading();
	usage->user = read_next(cage, CPU_USER, reading);
	usage->system = read_next(cage, CPU_SYSTEM, reading);
	usage->cpu = read_next(cage, CPU, reading);
	usage->throttled = read_next(cage, THROTTLED, reading);
}

static void read_counters(struct cage *cage, struct cage_usage *usage)
{
	struct reading *reading = begin_reading();
	read_cpu(cage, usage);
	usage->refused_forks = read_next(cage, FORKS, reading);
	usage->oom_kills = read_next(cage, OOM_KILLS, reading);
	usage->hits = read_next(cage, HITS, reading);
	usage->disk_read = read_next(cage, DISK_READ, reading);
	usage->disk_written = read_next(cage, DISK_WRITTEN, reading);
	usage->cpu_pressure = read_next(cage, CPU_PRESSURE, reading);
	usage->memory_pressure = read_next(cage, MEMORY_PRESSURE, reading);
	usage->io_pressure = read_next(cage, IO_PRESSURE, reading);
}

/* v1 counts memory and swap together, where it counts swap; v2 tells of memory alone. */
static enum meter peak_meter(struct cage *cage)
{
	return !cage->v2 && open_meter(cage, PEAK_SWAP) >= 0 ? PEAK_SWAP : PEAK;
}

static bool reset_meter(struct cage *cage, enum meter meter)
{
	int fd = open_meter(cage, meter);
	return fd < 0 || pwrite(fd, "0", 1, 0) == 1;
}

/* Of v2's only what is read by the same descriptor is reset, and before 6.12 nothing: there a cgroup is used once. */
static void reset_peak(struct cage *cage)
{
	uint64_t count;
	cage->seen = -1;
	if (!reset_meter(cage, peak_meter(cage)) && !cage->v2)
		for (enum meter meter = PEAK; meter <= PEAK_SWAP; meter++) {
			close(cage->meters[meter]);
			cage->meters[meter] = MISSING; /* a peak that is not of this run is none */
		}
	while (cage->oom >= 0 && read(cage->oom, &count, sizeof count) > 0)
		; /* what the last run left */
}

/* What was used until now is the last run's. Its reaper has used time since it was looked at, and has done nothing else. */
void begin_measuring(struct cage *cage)
{
	if (cage->untouched) /* but for what joining it took, tens of microseconds */
		return;
	reset_peak(cage);
	if (cage->counted && !cage->v2) {
		cage->base = cage->last;
		read_cpu(cage, &cage->base);
	} else {
		read_counters(cage, &cage->base);
	}
	cage->counted = false;
}

void open_meters(struct cage *cage)
{
	for (enum meter meter = 0; meter < METERS; meter++)
		open_meter(cage, meter);
}

/* Of one in which a sandbox was prepared: that took time and memory, and no more. */
void measure_from_now(struct cage *cage)
{
	reset_peak(cage);
	read_cpu(cage, &cage->base);
}

static void remove_from_list(struct cage *cage)
{
	struct cage **link = &cages;
	while (*link && *link != cage)
		link = &(*link)->next;
	if (*link)
		*link = cage->next;
}

static void discard(struct cage *cage)
{
	int error = errno;
	remove_from_list(cage);
	destroy(cage);
	errno = error;
}

static bool is_ready(struct cage *cage)
{
	if (cage->resetting && sem_trywait(&cage->ready) == 0)
		cage->resetting = false;
	return !cage->resetting;
}

/*
 * The one that has rested longest: what the kernel frees later, after a grace period, is not charged to it any more. One that is
 * still being emptied only where there are several; what could not be emptied goes.
 */
static struct cage *find_idle(const struct plan *plan)
{
	enum { ROTATION = 3 };
	struct cage *emptying = NULL, *found = NULL;
	int count = 0;
	for (struct cage *next, *cage = cages; cage; cage = next) {
		next = cage->next;
		if (cage->busy || !fits(cage, plan))
			continue;
		if (!is_ready(cage)) {
			emptying = cage;
			count++;
		} else if (cage->spoilt) {
			discard(cage);
		} else if (!found || cage->given < found->given) {
			found = cage;
		}
	}
	if (found || count < ROTATION)
		return found;
	await(&emptying->ready);
	emptying->resetting = false;
	if (!emptying->spoilt)
		return emptying;
	discard(emptying);
	return NULL;
}

static struct cage *make_and_list(const struct plan *plan, const char **object)
{
	*object = plan->cgroup2 ? plan->cgroup2 : plan->cgroup1[0].value;
	struct cage *cage = make(plan);
	if (cage) {
		cage->next = cages;
		cages = cage;
	}
	return cage;
}

struct cage *take_cage(const struct plan *plan, const char **object)
{
	struct cage *cage = find_idle(plan);
	if (cage && write_settings(cage, plan, object) < 0) { /* EBUSY: more is charged to it than it may now have */
		discard(cage);
		cage = NULL;
	}
	if (!cage) {
		cage = make_and_list(plan, object);
		if (cage && write_settings(cage, plan, object) < 0) {
			discard(cage);
			cage = NULL;
		}
		if (!cage)
			return NULL;
	}
	cage->busy = true;
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
	resources->untied = has_too_many_nests();
	sem_post(&cage->wake);
	await(&cage->ready);
	if (resources->untied)
		leave_nest(cage, plan, resources, record);
	*pidfd = cage->pidfd;
	return cage->pid;
}

static int64_t since(int64_t value, int64_t base)
{
	return value < 0 || base < 0 ? -1 : value - base;
}

static int64_t peak_of(struct cage *cage)
{
	return read_meter(cage, peak_meter(cage));
}

/*
 * The kernel tells of, and counts, victims of an out-of-memory in a parent too: only what met its own limit has exceeded it.
 * v1's failcnt would say it and stays 0 on current kernels; but who is short of memory has its peak at the limit.
 */
bool cage_met_limit(struct cage *cage)
{
	enum { CLOSE = 64 << 10 }; /* the largest piece that is charged at once and has nothing smaller to fall back to */
	if (cage->v2)
		return since(read_meter(cage, HITS), cage->base.hits) > 0;
	return peak_of(cage) >= read_meter(cage, LIMIT) - CLOSE;
}

int cage_oom_fd(const struct cage *cage)
{
	return cage->oom;
}

/* The sum is measured to the nanosecond, user and system time are counted in ticks: as in getrusage(2), these are scaled. */
static void split_exactly(struct cage_usage *usage, int64_t user, int64_t system)
{
	int64_t counted = user + system;
	if (usage->cpu < 0)
		return;
	usage->user = counted > 0 ? (int64_t)((double)usage->cpu * (double)user / (double)counted) : usage->cpu;
	usage->system = usage->cpu - usage->user;
}

int64_t cage_cpu(struct cage *cage)
{
	return since(read_meter(cage, CPU), cage->base.cpu);
}

/* What has been used so far, and the memory that is in use; -1 where no controller tells. */
void cage_now(struct cage *cage, int64_t *cpu, int64_t *memory, int64_t *disk_read, int64_t *disk_written)
{
	if (open_meter(cage, CPU) >= 0)
		*cpu = cage_cpu(cage);
	*memory = read_meter(cage, USAGE);
	*disk_read = since(read_meter(cage, DISK_READ), cage->base.disk_read);
	*disk_written = since(read_meter(cage, DISK_WRITTEN), cage->base.disk_written);
}

/* Whether somebody has to look for the peak: Linux before 5.19 keeps none in v2. */
bool cage_wants_looks(struct cage *cage)
{
	return cage->v2 && open_meter(cage, PEAK) < 0 && open_meter(cage, USAGE) >= 0;
}

void cage_look(struct cage *cage)
{
	int64_t memory = read_meter(cage, USAGE);
	if (memory > cage->seen)
		cage->seen = memory;
}

/* cgroup-v2.rst, "cgroup.freeze": nothing inside can undo it, and SIGKILL is heard all the same. False: it can't be done. */
bool cage_freeze(struct cage *cage, bool freeze)
{
	if (!cage->v2 || write_text(cage->places[0].directory, "cgroup.freeze", freeze ? "1" : "0") < 0)
		return false;
	cage->frozen = freeze;
	return true;
}

void cage_kill(struct cage *cage)
{
	if (cage->v2)
		write_text(cage->places[0].directory, "cgroup.kill", "1"); /* since 5.14; the death of pid 1 does it too */
	lift_disk_limits(cage);
}

/* user, system: as the kernel has counted them for each process, for v1 that keeps no more than the sum. */
void cage_usage(struct cage *cage, int64_t user, int64_t system, struct cage_usage *usage)
{
	struct cage_usage *base = &cage->base;
	read_counters(cage, usage);
	cage->last = *usage;
	cage->counted = true;
	if (cage_wants_looks(cage))
		cage_look(cage);
	usage->peak = peak_of(cage);
	usage->seen = cage->seen;
	usage->oom_kills = since(usage->oom_kills, base->oom_kills);
	usage->met_limit = usage->oom_kills > 0 && cage_met_limit(cage);
	usage->cpu = since(usage->cpu, base->cpu);
	if (cage->v2)
		user = since(usage->user, base->user), system = since(usage->system, base->system);
	split_exactly(usage, user, system);
	usage->throttled = since(usage->throttled, base->throttled);
	usage->refused_forks = since(usage->refused_forks, base->refused_forks);
	usage->disk_read = since(usage->disk_read, base->disk_read);
	usage->disk_written = since(usage->disk_written, base->disk_written);
	usage->cpu_pressure = since(usage->cpu_pressure, base->cpu_pressure);
	usage->memory_pressure = since(usage->memory_pressure, base->memory_pressure);
	usage->io_pressure = since(usage->io_pressure, base->io_pressure);
}

/* Of v2 one whose peak can be reset, and that is empty enough: nothing there empties it at our bidding before 5.19. */
static bool can_be_used_again(struct cage *cage)
{
	return cage->v2 ? reset_meter(cage, PEAK) && !needs_reset(cage, begin_reading()) : cage->has_nest;
}

void give_cage(struct cage *cage)
{
	static uint64_t order;
	int idle = 0;
	for (struct cage *other = cages; other; other = other->next)
		idle += !other->busy;
	lift_disk_limits(cage);
	if (idle >= KEEP_IDLE || (cage->frozen && !cage_freeze(cage, false)) || !can_be_used_again(cage)) {
		discard(cage);
		return;
	}
	cage->busy = cage->untouched = false;
	cage->given = ++order;
	memset(&cage->base, 0, sizeof cage->base);
	cage->resetting = cage->has_nest && needs_reset(cage, begin_reading());
	if (cage->resetting) { /* in its thread: it can take long */
		cage->job = RESET;
		sem_post(&cage->wake);
	}
}

void remove_cages(void)
{
	while (cages) {
		struct cage *cage = cages;
		cages = cage->next;
		if (cage->resetting)
			await(&cage->ready);
		destroy(cage);
	}
}
