/*
 * The ladder's last rung: what a tree of processes uses, read from /proc. Everything in a pid namespace descends from
 * its pid 1, so the walk starts there (proc_pid_children(5)). Memory is PSS (proc_pid_smaps(5)), looked at only where the
 * cheap upper bound, the sum of the resident sizes, is beyond the limit.
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <fcntl.h>
#include <dirent.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TREE = 4096 };

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

static void add_children(pid_t pid, const char *thread, pid_t *tree, int *count)
{
	static char text[1 << 16];
	char file[300];
	snprintf(file, sizeof file, "task/%s/children", thread);
	if (read_proc(pid, file, text, sizeof text) <= 0)
		return;
	for (char *end, *at = text; *count < MAX_TREE; at = end) {
		long child = strtol(at, &end, 10);
		if (end == at)
			return;
		tree[(*count)++] = (pid_t)child;
	}
}

/* Children belong to the thread that made them, so each thread is asked. Returns the number of threads. */
static int add_threads(pid_t pid, pid_t *tree, int *count)
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
			add_children(pid, entry->d_name, tree, count);
		}
	closedir(directory);
	return threads;
}

/* proc_pid_stat(5): fields 14 to 17, in clock ticks; the name before them may hold anything but ends with ")". */
static int64_t cpu_of(pid_t pid, bool own)
{
	char text[1024];
	if (read_proc(pid, "stat", text, sizeof text) <= 0)
		return 0;
	char *after = strrchr(text, ')');
	unsigned long user, system;
	long child_user, child_system;
	if (!after || sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld", &user, &system,
			     &child_user, &child_system) != 4)
		return 0;
	int64_t ticks = child_user + child_system + (own ? (int64_t)(user + system) : 0);
	return ticks * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK));
}

static int64_t resident(pid_t pid)
{
	char text[128];
	long total, pages;
	if (read_proc(pid, "statm", text, sizeof text) <= 0 || sscanf(text, "%ld %ld", &total, &pages) != 2)
		return 0;
	return pages * sysconf(_SC_PAGESIZE);
}

static int64_t proportional(pid_t pid)
{
	char text[2048];
	if (read_proc(pid, "smaps_rollup", text, sizeof text) <= 0)
		return resident(pid); /* not readable: the larger figure is the safe one */
	const char *pss = strstr(text, "\nPss:"), *swap = strstr(text, "\nSwapPss:");
	return ((pss ? strtoll(pss + 5, NULL, 10) : 0) + (swap ? strtoll(swap + 9, NULL, 10) : 0)) * 1024;
}

/* Files in the run's private tmpfs are memory that nobody needs to have mapped. */
static int64_t in_tmpfs(const pid_t *tree, int count)
{
	char path[64];
	struct statfs status;
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "/proc/%d/root/tmp", tree[i]);
		if (statfs(path, &status) == 0 && status.f_type == TMPFS_MAGIC)
			return (int64_t)(status.f_blocks - status.f_bfree) * status.f_bsize;
	}
	return 0;
}

int sample_tree(pid_t reaper, int64_t limit, struct sample *sample)
{
	static pid_t tree[MAX_TREE];
	int count = 0;
	memset(sample, 0, sizeof *sample);
	sample->cpu = cpu_of(reaper, false);
	add_threads(reaper, tree, &count);
	for (int i = 0; i < count; i++) {
		sample->tasks += add_threads(tree[i], tree, &count);
		sample->cpu += cpu_of(tree[i], true);
		sample->memory += resident(tree[i]);
	}
	int64_t files = in_tmpfs(tree, count);
	sample->memory += files;
	if (limit && sample->memory > limit) {
		sample->memory = files;
		for (int i = 0; i < count; i++)
			sample->memory += proportional(tree[i]);
	}
	return count;
}
