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
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef bool (*handler)(pid_t child, void *context);

/*
 * Returns for how many children the handler has said yes; what is not reached by the time counts as one. proc_pid_children(5):
 * numbers, each with a space behind it.
 */
static int for_each_child(const char *path, handler handle, void *context, int64_t until)
{
	char text[1 << 13];
	int count = 0, file = open(path, O_RDONLY | O_CLOEXEC);
	size_t kept = 0;
	ssize_t size;
	while (file >= 0 && (size = read(file, text + kept, sizeof text - 1 - kept)) > 0) {
		size_t end = kept + (size_t)size;
		char *at = text, *space;
		text[end] = '\0';
		for (; (space = strchr(at, ' ')); at = space + 1) {
			if (now() > until) {
				close(file);
				return count + 1;
			}
			count += handle((pid_t)strtol(at, NULL, 10), context);
		}
		kept = (size_t)(text + end - at);
		memmove(text, at, kept);
	}
	if (file >= 0)
		close(file);
	return count;
}

struct wanted { pid_t inside, found; };

/* proc_pid_status(5): "NSpid" has a number for each namespace, the innermost last. */
static bool is_wanted(pid_t child, void *context)
{
	struct wanted *wanted = context;
	char path[64], text[4096], *line, *last;
	snprintf(path, sizeof path, "/proc/%d/status", child);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
	if (file >= 0)
		close(file);
	text[size > 0 ? size : 0] = '\0';
	if (!(line = strstr(text, "\nNSpid:")) || !(line = strtok_r(line + 1, "\n", &last)))
		return false;
	const char *number = strrchr(line, '\t');
	if (number && strtol(number + 1, NULL, 10) == wanted->inside)
		wanted->found = child;
	return wanted->found == child;
}

/* By which number we know a child that has another one in its own namespace; 0: it is not there (any more). */
pid_t child_on_host(pid_t parent, pid_t inside)
{
	struct wanted wanted = {inside, 0};
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", parent, parent);
	for_each_child(path, is_wanted, &wanted, INT64_MAX);
	return wanted.found;
}

static bool kill_child(pid_t child, void *context)
{
	(void)context;
	kill(child, SIGKILL); /* nobody has waited for it: the number is still its */
	return true;
}

/* In a domain one call is enough: no fork of a process that has a signal pending comes to its end. */
void kill_everything(enum reach reach)
{
	if (reach == REACH_CHILDREN)
		for_each_child("/proc/thread-self/children", kill_child, NULL, INT64_MAX);
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

struct sweep { bool (*known)(pid_t); int flags; };

/*
 * Strays are waited for one by one: reapers are children too, and their ends are for others to see. One that is gone now counts
 * too: what it had is ours since, and may stand in a part of the list that was read before.
 */
static bool end_stray(pid_t child, void *context)
{
	const struct sweep *sweep = context;
	int status;
	if (sweep->known(child))
		return false;
	kill(child, SIGKILL);
	while (waitpid(child, &status, __WALL | sweep->flags) < 0 && errno == EINTR)
		;
	return true;
}

/*
 * What was left to the launcher by reapers that were killed: whatever child of its is no known reaper. Returns whether there
 * may be more: what has died hands on its children, and dying takes its time, which only who has nothing else to do may wait.
 */
bool sweep_strays(bool (*known)(pid_t), bool wait)
{
	enum { AT_ONCE = 3000000 }; /* ns: other runs have their deadlines meanwhile */
	struct sweep sweep = {known, wait ? 0 : WNOHANG};
	int64_t until = wait ? INT64_MAX : now() + AT_ONCE;
	char path[300];
	int found = 0;
	DIR *threads = opendir("/proc/self/task");
	for (struct dirent *entry; threads && (entry = readdir(threads));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
		found += for_each_child(path, end_stray, &sweep, until);
	}
	if (threads)
		closedir(threads);
	return found > 0;
}
