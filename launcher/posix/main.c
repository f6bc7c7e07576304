/*
 * Theory of operation, where there is no Linux
 *
 * A monitor is the parent of one command, on any POSIX system. The warden, a Python process that watches all runs of a caller
 * (backends/posix/warden.py), starts one for each run: what must happen between fork and exec can't be done in Python
 * (signal-safety(7)), and the deadline must hold while Python is busy or dead. It knows no policy: words come over its
 * channel, and are carried out or refused, as the launcher of Linux does it (../main.c); both share words.c, limits.c and report.c.
 *
 * The command leads a session and a process group of its own. The group is killed at the deadline, on the warden's order, and
 * when the channel closes because the warden has died. Who has left the group is the warden's to find: it can look at all
 * processes (psutil); the monitor can't, for no system call that they all have would show them. When the command has ended
 * the monitor says "over", and waits with reaping until the warden has found everybody else; then it says "ended", with
 * wait status and times as the kernel counts them, and ends.
 *
 *     monitor serve CHANNEL [FD ...]    as the warden starts it, in the order of the words "fd"; nothing else is open
 *     monitor run WORDS...              one run, with descriptors 0, 1 and 2; prints the outcome on 2. Who leaves the group stays.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct plan plan;
static int descriptors[MAX_DESCRIPTORS];

static int read_all(int socket, char *bytes, size_t size)
{
	while (size) {
		ssize_t count = read(socket, bytes, size);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return -1;
		bytes += count;
		size -= (size_t)count;
	}
	return 0;
}

static char *receive_words(int channel, size_t *size)
{
	unsigned char head[4];
	if (read_all(channel, (char *)head, sizeof head) < 0)
		return NULL;
	*size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
	char *words = *size && *size <= MAX_WORDS_BYTES ? malloc(*size) : NULL;
	return words && read_all(channel, words, *size) == 0 ? words : NULL;
}

/* The storage stays until the end of the process: the plan borrows from it. */
static int read_plan(const char *words, size_t size, size_t given, struct message *message)
{
	const char *why = "";
	char **storage = calloc(count_words(words, size) + 2, sizeof *storage);
	if (!storage)
		describe_failure(message, "words", "", ENOMEM);
	else if (parse_words(words, size, storage, &plan, &why) < 0)
		describe_failure(message, "words", why, EINVAL);
	else if (plan.n_targets != given)
		describe_failure(message, "words", "descriptors named and sent differ", EINVAL);
	else
		return 0;
	return -1;
}

static int number_of(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);
	return *text && !*end && value >= 0 && value <= 1 << 30 ? (int)value : -1;
}

static int serve_run(int argc, char **argv)
{
	struct message message = {.size = 0};
	size_t size, given = (size_t)argc - 1;
	int channel = number_of(argv[0]);
	if (given > MAX_DESCRIPTORS || channel < 3 || fcntl(channel, F_SETFD, FD_CLOEXEC) < 0)
		return 125;
	for (size_t i = 0; i < given; i++) {
		descriptors[i] = number_of(argv[i + 1]);
		if (descriptors[i] < 3 || fcntl(descriptors[i], F_SETFD, FD_CLOEXEC) < 0)
			return 125;
	}
	char *words = receive_words(channel, &size);
	if (!words)
		return 125; /* the warden has died */
	if (read_plan(words, size, given, &message) == 0 && watch_over(&plan, descriptors, channel, &message) < 0)
		return 0;
	tell_warden(channel, &message);
	return 0;
}

static int print(const struct message *message)
{
	int status = -1;
	fputs("monitor:", stderr);
	for (size_t at = 0; at < message->size; at += strlen(message->text + at) + 1) {
		fprintf(stderr, " %s", message->text + at);
		if (!strcmp(message->text + at, "status"))
			status = (int)strtol(message->text + at + sizeof "status", NULL, 10);
	}
	fputs("\n", stderr);
	if (status < 0)
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Nobody gives orders here: the one that lets go of the command waits in the channel from the start, and again after "over". */
static int run_by_hand(int argc, char **argv)
{
	struct message message = {.size = 0};
	size_t size;
	int pair[2];
	char *words = join_words(argc, argv, &size);
	if (!words || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return 125;
	pid_t warden = fork();
	if (warden < 0)
		return 125;
	if (warden == 0) { /* hears "over", or the failure, and lets go */
		char heard[4096];
		close(pair[0]);
		for (ssize_t count; (count = read(pair[1], heard, sizeof heard)) > 0;)
			if (write(pair[1], "r", 1) < 0)
				break;
		_exit(0);
	}
	close(pair[1]);
	for (int i = 0; i < 3; i++)
		descriptors[i] = i;
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	if (read_plan(words, size, 3, &message) == 0)
		watch_over(&plan, descriptors, pair[0], &message);
	close(pair[0]);
	waitpid(warden, NULL, 0);
	return print(&message);
}

/* Ends by SIGKILL alone, or with its run: what else comes (a terminal's signals) is the warden's business. */
static void leave_caller(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	sigset_t none;
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL); /* the caller may have blocked SIGCHLD, of which we live */
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		signal(ignored[i], SIG_IGN);
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		leave_caller();
		return serve_run(argc - 2, argv + 2);
	}
	if (argc >= 3 && !strcmp(argv[1], "run")) {
		leave_caller();
		return run_by_hand(argc - 2, argv + 2);
	}
	fputs("proc-sandbox monitor " VERSION "\nusage: monitor serve CHANNEL [FD ...] | monitor run WORDS...\n", stderr);
	return 125;
}
