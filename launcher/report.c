/* Failures on the way to the command: written once, to the run's record; and the messages that tell Python. */
#include "launcher.h"

#include <errno.h>
#include <string.h>
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

int64_t nanoseconds(struct timeval time)
{
	return time.tv_sec * INT64_C(1000000000) + time.tv_usec * INT64_C(1000);
}

void add_word(struct message *message, const char *text)
{
	enum { LONGEST = RECORD_OBJECT }; /* a longer one is cut: it may be missed, but the words after it never */
	size_t size = strnlen(text, LONGEST - 1), room = sizeof message->text - message->size;
	if (size >= room)
		size = room - 1; /* never: a step, an object and two dozen numbers are all that is ever said */
	memcpy(message->text + message->size, text, size);
	message->text[message->size + size] = '\0';
	message->size += size + 1;
}

void add_bytes(struct message *message, const void *bytes, size_t size)
{
	if (size > sizeof message->text - message->size)
		return; /* never, as above */
	memcpy(message->text + message->size, bytes, size);
	message->size += size;
}

/* By hand: snprintf(3) takes longer than all else that is done while somebody waits. */
void add_number(struct message *message, const char *key, int64_t value)
{
	char text[24], *at = text + sizeof text;
	uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
	*--at = '\0';
	do
		*--at = (char)('0' + left % 10);
	while (left /= 10);
	if (value < 0)
		*--at = '-';
	add_word(message, key);
	add_word(message, at);
}
