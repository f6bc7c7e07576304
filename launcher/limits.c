/* Resource limits and niceness, the same on every system. */
#include "launcher.h"

#include <errno.h>
#include <sys/resource.h>

void set_rlimits(const struct start *start, struct record *record)
{
	for (size_t i = 0; i < start->n_rlimits; i++) {
		struct rlimit limit = {start->rlimits[i].value, start->rlimits[i].value};
		if (setrlimit(start->rlimits[i].resource, &limit) == 0)
			continue;
		/* A hard limit of the caller that is lower already holds more than was asked: keep it. */
		struct rlimit held;
		if (errno != EPERM || getrlimit(start->rlimits[i].resource, &held) < 0 ||
		    held.rlim_max > limit.rlim_max)
			die(record, "rlimit", "");
		held.rlim_cur = held.rlim_max;
		if (setrlimit(start->rlimits[i].resource, &held) < 0)
			die(record, "rlimit", "");
	}
}

void add_niceness(int more, struct record *record)
{
	enum { MOST = 19 };
	errno = 0;
	int niceness = more ? getpriority(PRIO_PROCESS, 0) : 0;
	if (errno)
		die(record, "nice", "");
	niceness = niceness + more > MOST ? MOST : niceness + more;
	if (more && setpriority(PRIO_PROCESS, 0, niceness) < 0)
		die(record, "nice", "");
}
