/* Failures on the way to the command: written once, to the run's record, from where run.c tells Python. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static void copy(char *to, size_t size, const char *from)
{
	size_t i = 0;
	for (; from && from[i] && i + 1 < size; i++)
		to[i] = from[i];
	to[i] = '\0';
}

void record_failure(struct record *record, const char *step, const char *object, int error)
{
	copy(record->step, sizeof record->step, step);
	copy(record->object, sizeof record->object, object);
	record->error = error ? error : EIO;
}

noreturn void die(struct record *record, const char *step, const char *object)
{
	record_failure(record, step, object, errno);
	_exit(125);
}

int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}
