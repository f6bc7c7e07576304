/*
 * The ladder's last rung: what a tree of processes uses, read from /proc. Everything in a pid namespace descends from
 * its pid 1, so the walk starts there (proc_pid_children(5)).
 *
 * Memory is what nobody else would free: anonymous pages by their proportional share and swap (proc_pid_smaps(5)), page
 * tables, and the run's tmpfs. Shared anonymous memory is refused by the filter, for its pages stay when no page table shows
 * them any more. Mapped files are the page cache's, which the kernel takes back. Each process tells cheaply, and without a
 * lock that it could hold, how many anonymous pages it has. All of them together are the most that the tree can use, the
 * largest process alone is the least: what is shared is shared within the tree. The exact figure is looked up where the
 * limit, or the peak so far, lies between the two.
 *
 * A walk takes the longer the more a tree holds, and other runs' deadlines must not wait for it: so it is done in a thread.
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
	MAX_TREE = 4096, /* the planner lets no sampled run have as many tasks */
	PEAK_EVERY = 8,   /* samples between two exact looks at a tree that is within its limit */
};

struct process { pid_t pid; int parent, tasks; uint64_t born; int64_t cpu, anonymous, size; };
struct tree { int count, tasks; struct process at[MAX_TREE]; };

static ssize_t read_proc(pid_t pid, const char *file, char *text, size_t size)
{
	char path[320];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size_t total = 0;
	ssize_t count;
	while (total < size - 1 && (count = read(fd, text + total, size - 1 - total)) > 0)
		total += (size_t)count;
	close(fd);
	text[total] = '\0';
	return (ssize_t)total;
}

/* --- the walk --- */

static void add_children(struct tree *tree, int parent, pid_t pid, const char *thread)
{
	char file[300], text[1 << 15];
	snprintf(file, sizeof file, "task/%s/children", thread);
	if (read_proc(pid, file, text, sizeof text) <= 0)
		return;
	for (char *end, *at = text; tree->count < MAX_TREE; at = end) {
		long child = strtol(at, &end, 10);
		if (end == at)
			return;
		tree->at[tree->count++] = (struct process){.pid = (pid_t)child, .parent = parent};
	}
}

/* Children belong to the thread that made them, so each thread is asked. Returns the number of threads. */
static int add_threads(struct tree *tree, int parent, pid_t pid)
{
	char path[64];
	int threads = 0;
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *directory = opendir(path);
	if (!directory)
		return 0;
	for (struct dirent *entry; (entry = readdir(directory));)
		if (entry->d_name[0] != '.') {
			threads++;
			add_children(tree, parent, pid, entry->d_name);
		}
	closedir(directory);
	return threads;
}

/* proc_pid_stat(5): fields 14 to 17 and 22, in clock ticks; the name before them may hold anything but ends with ")". */
static int64_t cpu_of(pid_t pid, int64_t *waited, uint64_t *born)
{
	char text[1024];
	*waited = 0;
	if (read_proc(pid, "stat", text, sizeof text) <= 0)
		return 0;
	char *after = strrchr(text, ')');
	unsigned long user, system;
	unsigned long long start;
	long child_user, child_system;
	if (!after || sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld %*d %*d %*d %*d %llu", &user,
			     &system, &child_user, &child_system, &start) != 5)
		return 0;
	int64_t tick = INT64_C(1000000000) / sysconf(_SC_CLK_TCK);
	*waited = (child_user + child_system) * tick;
	if (born)
		*born = start;
	return (int64_t)(user + system) * tick;
}

static bool read_size(pid_t pid, const char *file, struct process *process)
{
	char text[128];
	long total = 0, pages = 0, mapped = 0; /* mapped: of files and tmpfs; proc_pid_statm(5) */
	if (read_proc(pid, file, text, sizeof text) > 0)
		sscanf(text, "%ld %ld %ld", &total, &pages, &mapped);
	process->size = total * sysconf(_SC_PAGESIZE);
	process->anonymous = (pages - mapped) * sysconf(_SC_PAGESIZE);
	return total > 0;
}

/* A first thread that has ended shows nothing of the memory in which the others go on: then one of these is asked. */
static void measure_size(struct process *process)
{
	char path[300];
	if (read_size(process->pid, "statm", process))
		return;
	snprintf(path, sizeof path, "/proc/%d/task", process->pid);
	DIR *directory = opendir(path);
	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		snprintf(path, sizeof path, "task/%s/statm", entry->d_name);
		if (entry->d_name[0] != '.' && read_size(process->pid, path, process))
			break;
	}
	if (directory)
		closedir(directory);
}

static int by_pid(const void *a, const void *b)
{
	pid_t first = ((const struct seen *)a)->pid, second = ((const struct seen *)b)->pid;
	return (first > second) - (first < second);
}

/*
 * CPU time of the dead is with whoever waited for them; of those for whom nobody waits (SIGCHLD ignored) it is lost. So
 * what each process was seen to use is added up over the samples, and what is gone is not taken away again.
 */
static void add_up(struct ledger *ledger, const struct tree *tree)
{
	struct seen *now_seen = malloc((size_t)(tree->count + 1) * sizeof *now_seen);
	if (!now_seen)
		return;
	for (int i = 0; i < tree->count; i++) {
		const struct process *process = &tree->at[i];
		struct seen key = {.pid = process->pid}, *old = ledger->count ?
			bsearch(&key, ledger->seen, (size_t)ledger->count, sizeof key, by_pid) : NULL;
		int64_t before = old && old->born == process->born ? old->cpu : 0;
		if (process->cpu > before)
			ledger->total += process->cpu - before;
		now_seen[i] = (struct seen){process->pid, process->born, process->cpu > before ? process->cpu : before};
	}
	qsort(now_seen, (size_t)tree->count, sizeof *now_seen, by_pid);
	free(ledger->seen);
	ledger->seen = now_seen;
	ledger->count = tree->count;
}

/* Returns the CPU time that the tree still shows, of the living and of those that were waited for. */
static int64_t walk(struct tree *tree, struct watch *watch)
{
	int64_t waited, shown, bound = 0;
	tree->count = tree->tasks = 0;
	cpu_of(watch->reaper, &shown, NULL);
	add_threads(tree, -1, watch->reaper);
	for (int i = 0; i < tree->count; i++) {
		struct process *process = &tree->at[i];
		measure_size(process);
		bound += process->anonymous;
		__atomic_store_n(&watch->bound, bound, __ATOMIC_RELEASE); /* who waits for us sees so far */
		process->tasks = add_threads(tree, i, process->pid);
		tree->tasks += process->tasks;
		process->cpu = cpu_of(process->pid, &waited, &process->born);
		shown += process->cpu + waited;
	}
	return shown;
}

/* --- memory --- */

static int64_t value_of(const char *text, const char *key)
{
	const char *found = strstr(text, key);
	return found ? strtoll(found + strlen(key), NULL, 10) * 1024 : 0;
}

enum sharing { ALONE, SHARED, UNSURE };

/* Whether a thread waits so that nothing but its death wakes it, as vfork(2) does until the child is another program. */
static bool has_waiting_thread(pid_t pid)
{
	char path[300], text[1024];
	bool waiting = false;
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *directory = opendir(path);
	for (struct dirent *entry; directory && !waiting && (entry = readdir(directory));) {
		snprintf(path, sizeof path, "task/%s/stat", entry->d_name);
		const char *after = entry->d_name[0] != '.' && read_proc(pid, path, text, sizeof text) > 0 ? strrchr(text, ')') : NULL;
		waiting = after && after[1] == ' ' && after[2] == 'D';
	}
	if (directory)
		closedir(directory);
	return waiting;
}

/*
 * A child of vfork(2) runs in its parent's memory: that is there once. Where kcmp(2) is refused (containers) one that is as large
 * as its parent, in which a thread waits, may be such a child.
 */
static enum sharing shares_memory(const struct tree *tree, int i)
{
	const struct process *own = &tree->at[i], *parent = own->parent >= 0 ? &tree->at[own->parent] : NULL;
	if (!parent)
		return ALONE;
	long result = syscall(SYS_kcmp, own->pid, parent->pid, KCMP_VM, 0, 0);
	if (result >= 0)
		return result == 0 ? SHARED : ALONE;
	return errno != ESRCH && own->size == parent->size && has_waiting_thread(parent->pid) ? UNSURE : ALONE;
}

static int64_t proportional(struct process *process)
{
	char text[2048];
	if (read_proc(process->pid, "smaps_rollup", text, sizeof text) <= 0) {
		measure_size(process); /* it has ended, and has nothing; else the larger figure is the safe one */
		return process->anonymous;
	}
	return value_of(text, "\nPss_Anon:") + value_of(text, "\nSwapPss:");
}

/* Page tables hold a page for each 2 MiB at the most that a process has reserved: few need to be asked. */
static int64_t page_tables(const struct process *process)
{
	enum { SMALL = 1 << 20 };
	char text[4096];
	if (process->size / 512 < SMALL || read_proc(process->pid, "status", text, sizeof text) <= 0)
		return 0;
	return value_of(text, "\nVmPTE:");
}

/* Files in the run's private tmpfs are memory that nobody needs to have mapped. */
static int64_t in_tmpfs(const struct tree *tree)
{
	char path[64];
	struct statfs status;
	for (int i = 0; i < tree->count; i++) {
		snprintf(path, sizeof path, "/proc/%d/root/tmp", tree->at[i].pid);
		if (statfs(path, &status) == 0 && status.f_type == TMPFS_MAGIC)
			return (int64_t)(status.f_blocks - status.f_bfree) * status.f_bsize;
	}
	return 0;
}

/*
 * The kernel keeps a part of each count with the processors, or before 6.2 with the threads, and gathers it when it has grown
 * to a batch: lib/percpu_counter.c, mm/memory.c. The figure comes of two counts.
 */
static int64_t imprecision(int tasks)
{
	static long processors, page;
	if (!page) {
		processors = sysconf(_SC_NPROCESSORS_CONF);
		page = sysconf(_SC_PAGESIZE);
	}
	int64_t batch = processors > 16 ? 2 * processors : 32;
	return 2 * (batch * processors + INT64_C(64) * tasks) * page;
}

/*
 * What may be there once or twice counts twice only when it has been there for many looks: vfork(2) lasts until the child's
 * execve(2), a millisecond or so, on a busy host some dozens.
 */
static int64_t exact(struct tree *tree, struct watch *watch, int64_t fixed)
{
	enum { MANY = 50 };
	int64_t total = fixed, unsure = 0;
	for (int i = 0; i < tree->count && total <= watch->limit; i++) {
		enum sharing sharing = shares_memory(tree, i);
		if (sharing == SHARED)
			continue; /* who makes itself slow to look at is taken at the bound */
		int64_t own = now() - watch->began < LOOK_BUDGET ? proportional(&tree->at[i]) : tree->at[i].anonymous;
		*(sharing == UNSURE ? &unsure : &total) += own;
	}
	bool decides = unsure && total <= watch->limit && total + unsure > watch->limit;
	watch->doubts = decides ? watch->doubts + 1 : 0;
	return decides && watch->doubts < MANY ? total : total + unsure;
}

static void measure_memory(struct tree *tree, struct watch *watch, struct sample *sample)
{
	int64_t fixed = watch->private_tmp ? in_tmpfs(tree) : 0, least = 0, most = 0;
	for (int i = 0; i < tree->count; i++) {
		int64_t anonymous = tree->at[i].anonymous, sure = anonymous - imprecision(tree->at[i].tasks);
		most += anonymous;
		least = least < sure ? sure : least;
		fixed += page_tables(&tree->at[i]);
	}
	sample->bound = fixed + most;
	sample->memory = fixed + least;
	bool peaks = sample->bound > watch->peak && watch->ticks % PEAK_EVERY == 0;
	if (sample->memory <= watch->limit && (sample->bound > watch->limit || peaks))
		sample->bound = sample->memory = exact(tree, watch, fixed);
	bool guessed = now() - watch->began > LOOK_BUDGET; /* what is shared was counted for each: no figure to report */
	if (sample->memory > watch->peak && !guessed)
		watch->peak = sample->memory;
}

/* --- the thread --- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct watch *first, **last;
	int event;
	bool started;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER, .event = -1};

static void take_sample(struct watch *watch, struct tree *tree)
{
	struct sample *sample = &watch->result;
	int64_t began = now();
	__atomic_store_n(&watch->bound, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&watch->began, began, __ATOMIC_RELEASE);
	memset(sample, 0, sizeof *sample);
	int64_t shown = walk(tree, watch);
	add_up(&watch->ledger, tree);
	sample->cpu = watch->ledger.total > shown ? watch->ledger.total : shown;
	sample->tasks = tree->tasks;
	if (watch->limit)
		measure_memory(tree, watch, sample);
	watch->ticks++;
	sample->cost = now() - began;
}

/*
 * What a process shares it tells only its own user (PTRACE_MODE_READ, ptrace(2)), and a container's root has no capability to
 * see it all the same. So the sampler looks as the run's user; by raw system calls, for libc's would take all threads along.
 * That it can't be signalled by the run meanwhile is the Landlock domain's doing, without which nothing is sampled there.
 */
static void look_as(uint32_t uid)
{
	if (!uid)
		return;
	syscall(SYS_setresgid, uid, uid, 0);
	syscall(SYS_setresuid, uid, uid, 0);
}

static void look_as_ourselves(uint32_t uid)
{
	if (!uid)
		return;
	syscall(SYS_setresuid, 0, 0, 0);
	syscall(SYS_setresgid, 0, 0, 0);
}

static void *sampler(void *argument)
{
	static struct tree tree;
	(void)argument;
	/* setns(2) of the main thread into a mount namespace wants a root and working directory that it shares with nobody. */
	int result = identity.home >= 0 && unshare(CLONE_FS) < 0 ? -1 : 1;
	eventfd_write(queue.event, result == 1 ? 1 : 2);
	while (result == 1) {
		pthread_mutex_lock(&queue.lock);
		while (!queue.first)
			pthread_cond_wait(&queue.filled, &queue.lock);
		struct watch *watch = queue.first;
		queue.first = watch->next;
		pthread_mutex_unlock(&queue.lock);
		uint32_t uid = watch->uid; /* the watch is not ours any more afterwards */
		look_as(uid);
		take_sample(watch, &tree);
		look_as_ourselves(uid);
		__atomic_store_n(&watch->pending, false, __ATOMIC_RELEASE);
		eventfd_write(queue.event, 1);
	}
	return NULL;
}

/* Returns a descriptor that is readable when samples are there; -1 with errno. */
int start_sampler(void)
{
	pthread_t thread;
	eventfd_t said = 0;
	if (queue.started)
		return queue.event;
	queue.event = eventfd(0, EFD_CLOEXEC);
	if (queue.event < 0)
		return -1;
	int error = pthread_create(&thread, NULL, sampler, NULL);
	if (!error && (eventfd_read(queue.event, &said) < 0 || said != 1))
		error = EPERM;
	if (error) {
		close(queue.event);
		errno = error;
		return -1;
	}
	pthread_detach(thread);
	fcntl(queue.event, F_SETFL, O_NONBLOCK);
	queue.started = true;
	return queue.event;
}

void ask_for_sample(struct watch *watch)
{
	watch->pending = true;
	watch->began = 0;
	watch->next = NULL;
	pthread_mutex_lock(&queue.lock);
	if (!queue.first)
		queue.last = &queue.first;
	*queue.last = watch;
	queue.last = &watch->next;
	pthread_cond_signal(&queue.filled);
	pthread_mutex_unlock(&queue.lock);
}

/*
 * How long, in ns, the look has taken that goes on, and what it has found so far at the most. To look closely takes a lock that
 * a process can hold for as long as the kernel has pages to give it: mmap(2), MAP_POPULATE.
 */
int64_t look_takes(const struct watch *watch, int64_t *bound)
{
	int64_t began = __atomic_load_n(&watch->began, __ATOMIC_ACQUIRE);
	*bound = __atomic_load_n(&watch->bound, __ATOMIC_ACQUIRE);
	return began ? now() - began : 0;
}

bool sample_is_there(const struct watch *watch)
{
	return !__atomic_load_n(&watch->pending, __ATOMIC_ACQUIRE);
}

/* What a tree used that pid 1 takes with it is lost to wait4(2): for the one look before a kill, in the main thread. */
void look_once(pid_t reaper, struct sample *sample)
{
	enum { FEW = 256 };
	static struct tree tree;
	int64_t waited;
	memset(sample, 0, sizeof *sample);
	tree.count = 0;
	cpu_of(reaper, &sample->cpu, NULL);
	add_threads(&tree, -1, reaper);
	for (int i = 0; i < tree.count && i < FEW; i++) {
		sample->tasks += add_threads(&tree, i, tree.at[i].pid);
		sample->cpu += cpu_of(tree.at[i].pid, &waited, NULL);
		sample->cpu += waited;
	}
	if (tree.count > FEW)
		sample->tasks += tree.count - FEW;
}
