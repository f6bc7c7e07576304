/*
 * The end of a run that has no pid namespace. All of it descends from its reaper, which is a subreaper: an orphan becomes the
 * reaper's child, and if the reaper is gone the launcher's. So it is over when there are no children any more.
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Returns how many. Strays are waited for one by one: reapers are children too, and their ends are for others to see.
 * A list that is longer than the buffer is read in part: the rest comes when these are gone. proc_pid_children(5)
 */
static int kill_listed(const char *path, bool (*known)(pid_t))
{
	char text[1 << 13];
	int status, count = 0, file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
	if (file >= 0)
		close(file);
	if (size <= 0)
		return 0;
	text[size] = '\0';
	for (char *at = text, *end; at < text + size; at = end) {
		long pid = strtol(at, &end, 10);
		if (end == at || (size == sizeof text - 1 && !*end))
			break; /* the last number may have been cut */
		if (*end == ' ')
			end++;
		if (known && known((pid_t)pid))
			continue;
		kill((pid_t)pid, SIGKILL); /* a child that nobody has waited for: the number is still its */
		while (known && waitpid((pid_t)pid, &status, __WALL) < 0 && errno == EINTR)
			;
		count++;
	}
	return count;
}

/* In a domain one call is enough: no fork of a process that has a signal pending comes to its end. */
void kill_everything(enum reach reach)
{
	if (reach == REACH_CHILDREN)
		kill_listed("/proc/thread-self/children", NULL);
	else
		kill(-1, SIGKILL);
}

void await_everything(enum reach reach)
{
	int status;
	while (wait4(-1, &status, __WALL, NULL) > 0 || errno == EINTR)
		if (reach == REACH_CHILDREN)
			kill_everything(reach);
}

/* What was left to the launcher by reapers that were killed: whatever child of its is no known reaper. */
void sweep_strays(bool (*known)(pid_t))
{
	for (int found = 1; found;) {
		char path[300];
		DIR *threads = opendir("/proc/self/task");
		found = 0;
		for (struct dirent *entry; threads && (entry = readdir(threads));) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
			found += kill_listed(path, known);
		}
		if (threads)
			closedir(threads);
	}
}
