/*
 * What Python says. Over the control socket it hands over a channel, a socket of its own for one run at a time, with the first run;
 * over the channel what it has to say of that run, and when that has ended the next one. Each run begins with a message of words, with
 * its descriptors, and is answered by one message (run.c). Where a channel is closed its run is killed.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_AT_ONCE = 253 }; /* descriptors of a message: unix(7), SCM_MAX_FD */

static struct pool channels = {sizeof(struct channel), NULL};

static void close_all(const int *descriptors, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(descriptors[i]);
}

static void drop(struct channel *channel)
{
	close(channel->socket);
	give_back(&channels, channel);
}

/* The socket is the channel's from now on. NULL: it could not be watched, and is closed. */
struct channel *open_channel(int socket)
{
	struct channel *channel = take_from(&channels);
	if (channel) {
		*channel = (struct channel){.source = {CHANNEL, .channel = channel}, .socket = socket};
		if (watch_fd(socket, &channel->source) == 0)
			return channel;
	}
	tell_failure(socket, "launch", "channel", errno);
	if (channel)
		drop(channel);
	else
		close(socket);
	return NULL;
}

/* Nobody is at its other end: it would be readable for ever. A run is told of its end all the same, for that is how runs end. */
static void on_hangup(struct channel *channel)
{
	unwatch(channel->socket);
	channel->gone = true;
	if (!channel->run)
		drop(channel);
}

/* Its run has been told of: the channel is free for the next one. */
void leave_channel(struct run *run)
{
	struct channel *channel = run->channel;
	run->channel = NULL;
	channel->run = NULL;
	if (channel->gone)
		drop(channel);
}

static void launch_from_memfd(int memfd, struct channel *channel, const int *descriptors, size_t count)
{
	struct stat status;
	if (fstat(memfd, &status) < 0 || status.st_size <= 0 || status.st_size > MAX_WORDS_BYTES) {
		tell_failure(channel->socket, "words", "memfd", E2BIG);
		return;
	}
	size_t size = (size_t)status.st_size;
	char *words = malloc(size);
	if (words && pread(memfd, words, size, 0) == (ssize_t)size)
		launch(words, size, channel, descriptors, count);
	else
		tell_failure(channel->socket, "words", "memfd", EIO);
	free(words);
}

/* size: -1: errno; 0: there is nobody at the other end. cut: some descriptors did not fit into our table (RLIMIT_NOFILE). */
static size_t receive(int socket, int *descriptors, ssize_t *size, bool *cut)
{
	union { char room[CMSG_SPACE(sizeof(int) * MOST_AT_ONCE)]; struct cmsghdr align; } ancillary;
	struct iovec body = {lent.words, sizeof lent.words};
	struct msghdr header = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
	*size = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	*cut = false;
	if (*size <= 0)
		return 0;
	size_t count = 0;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part))
		if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
			count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(descriptors, CMSG_DATA(part), count * sizeof(int));
		}
	if (header.msg_flags & MSG_TRUNC)
		*size = 1, lent.words[0] = '\0'; /* cut off: no words begin so, and launch() refuses it */
	*cut = header.msg_flags & MSG_CTRUNC;
	return count;
}

/* One run: its words, and its descriptors, which stay the caller's to close. */
static void on_request(struct channel *channel, ssize_t size, const int *descriptors, size_t count, bool cut)
{
	if (cut)
		tell_failure(channel->socket, "descriptors", "RLIMIT_NOFILE of the launcher", EMFILE);
	else if (count && !strcmp(lent.words, "memfd"))
		launch_from_memfd(descriptors[0], channel, descriptors + 1, count - 1);
	else
		launch(lent.words, (size_t)size, channel, descriptors, count);
}

/* "idmap PATH": can what lies there be shown as another user's? A file system can or cannot; only trying tells. */
static void tell_idmap(int socket, size_t size)
{
	const char *path = lent.words + sizeof "idmap";
	if (size <= sizeof "idmap" || lent.words[size - 1])
		tell_failure(socket, "words", "idmap", EINVAL);
	else
		tell_failure(socket, "idmap", path, try_idmap(path) < 0 ? errno : 0);
}

/* Whether Python is still there. */
bool on_control(int control)
{
	int descriptors[MOST_AT_ONCE];
	ssize_t size;
	bool cut;
	size_t count = receive(control, descriptors, &size, &cut);
	if (size < 0)
		return errno == EAGAIN || errno == EINTR;
	if (size == 0)
		return false;
	if (!count) /* not even its channel has come: the kernel has closed it */
		return true;
	if (!strcmp(lent.words, "idmap")) {
		tell_idmap(descriptors[0], (size_t)size);
		close_all(descriptors, count);
		return true;
	}
	struct channel *channel = open_channel(descriptors[0]);
	if (channel)
		on_request(channel, size, descriptors + 1, count - 1, cut);
	close_all(descriptors + 1, count - 1);
	return true;
}

/* "kill", the end, or what handle.c heeds. */
static void on_order(struct channel *channel)
{
	struct run *run = channel->run;
	char text[16] = "";
	ssize_t size = recv(channel->socket, text, sizeof text - 1, MSG_DONTWAIT);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size > 0 && heed(run, text))
		return;
	if (size <= 0)
		on_hangup(channel);
	if (!run->killed)
		run->cancelled = true;
	kill_run(run);
}

/* An order that crossed the end of its run ends with no NUL, as words do, and is nobody's any more. */
static void on_next(struct channel *channel)
{
	int descriptors[MOST_AT_ONCE];
	ssize_t size;
	bool cut;
	size_t count = receive(channel->socket, descriptors, &size, &cut);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0)
		on_hangup(channel);
	else if (!lent.words[size - 1])
		on_request(channel, size, descriptors, count, cut);
	close_all(descriptors, count);
}

void on_channel(struct channel *channel)
{
	if (channel->run)
		on_order(channel);
	else
		on_next(channel);
}
