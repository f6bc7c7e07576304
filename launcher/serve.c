/*
 * The event loop: runs come in over the control socket and channels (channel.c), and for each one exactly one message goes out
 * (run.c). Nothing here may end the process for the fault of one run: functions return -1 and the run is reported failed.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* v1 kills one process of the cgroup; a limit is on the whole tree, so the tree goes, as with memory.oom.group of v2. */
static void on_oom(struct run *run)
{
	uint64_t count;
	if (read(cage_oom_fd(run->cage), &count, sizeof count) < 0)
		return;
	if (run->killed || !cage_met_limit(run->cage))
		return; /* the kernel kills whom it must; what that was, the counters tell at the end */
	run->memory_exceeded = true;
	kill_run(run);
}

static void greet(int control)
{
	char words[1024];
	size_t size = (size_t)snprintf(words, sizeof words, "version%c%s", 0, VERSION) + 1;
	size += probe(words + size, sizeof words - size);
	if (send(control, words, size, MSG_NOSIGNAL) < 0)
		_exit(125);
}

/* Each change of the table of mounts is an exceptional condition of that file: proc_pid_mounts(5). */
static int watch_mounts(void)
{
	struct epoll_event event = {.events = EPOLLPRI, .data.ptr = &server.changed};
	return epoll_ctl(server.epoll, EPOLL_CTL_ADD, server.mounts, &event);
}

/* What was built of the host's mounts is not what it would be now. Runs that are under way keep what they have. */
static void on_mounts(void)
{
	drop_all_prepared();
	forget_views();
}

/* Who has mounted something and then asks for a run is to find it there, even if both came while we were at something else. */
void check_mounts(void)
{
	struct pollfd changed = {.fd = server.mounts, .events = POLLPRI};
	if (poll(&changed, 1, 0) > 0 && changed.revents & POLLPRI)
		on_mounts();
}

static int open_server(void)
{
	keep_from_children(&server, sizeof server);
	server.epoll = epoll_create1(EPOLL_CLOEXEC);
	server.mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC); /* of our home; -1: there is no /proc, and no view */
	server.records = mmap(NULL, MAX_RUNS * sizeof *server.records, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	server.ends = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server.epoll < 0 || server.records == MAP_FAILED || server.ends < 0 || begin_life() < 0)
		return -1;
	server.ended = (struct source){.kind = ENDS};
	server.changed = (struct source){.kind = MOUNTS};
	if (watch_fd(server.ends, &server.ended) < 0 || (server.mounts >= 0 && watch_mounts() < 0))
		return -1;
	/* A subreaper: what a reaper without a pid namespace leaves, should it be killed, comes to us and to nobody else. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return -1;
	return prctl(PR_SET_DUMPABLE, 0);
}

static void end_all(void)
{
	drop_all_prepared();
	for (struct run *run = server.runs; run; run = run->next)
		kill_run(run);
	while (server.runs) {
		if (server.runs->ending) {
			while (sweep_strays(is_reaper, true))
				;
			finish(server.runs);
		} else {
			dismiss(server.runs);
			end_run(server.runs, true);
		}
	}
	remove_cages();
}

/* Whether somebody may be busy with it: see note_event(). */
static bool is_awaited(const struct source *source)
{
	return source->kind != PARKED && !(source->kind == REAPER && source->run->told);
}

static void on_source(const struct source *source)
{
	switch (source->kind) {
	case CHANNEL: on_channel(source->channel); break;
	case REAPER: end_run(source->run, false); break;
	case OOM: on_oom(source->run); break;
	case SAMPLES: on_samples(); break;
	case ENDS: on_ends(); break;
	case PARKED: on_parked(source->run); break;
	case MOUNTS: on_mounts(); break;
	default: break;
	}
}

/* It comes as standard input, which is nothing from then on, as output is. */
static int take_control(void)
{
	int control = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	return dup2(STDOUT_FILENO, STDIN_FILENO) < 0 ? -1 : control;
}

int serve(void)
{
	int control = take_control();
	pid_t caller_pid = getppid();
	int caller = (int)syscall(SYS_pidfd_open, caller_pid, 0);
	if (control < 0 || open_server() < 0 || caller < 0 || getppid() != caller_pid)
		return 125;
	greet(control);
	server.control = (struct source){.kind = CONTROL};
	server.caller = (struct source){.kind = CALLER};
	if (watch_fd(control, &server.control) < 0 || watch_fd(caller, &server.caller) < 0)
		return 125;
	for (bool going = true; going;) {
		struct epoll_event event;
		/* One event at a time: what one handler frees can't be in a list that another still holds. */
		int count = epoll_wait(server.epoll, &event, 1, wait_milliseconds());
		if (count < 0 && errno != EINTR)
			break;
		if (count == 0)
			prepare_next();
		if (count > 0) {
			const struct source *source = event.data.ptr;
			if (is_awaited(source))
				note_event();
			if (source->kind == CONTROL)
				going = on_control(control);
			else if (source->kind == CALLER)
				going = false;
			else
				on_source(source);
		}
		look_at_all();
	}
	end_all();
	return 0;
}

/* Returns the exit status that a shell would give. */
static int print_end(const char *text, size_t size)
{
	struct facts facts;
	fprintf(stderr, "launcher:");
	if (size == sizeof "facts" + sizeof facts) {
		memcpy(&facts, text + sizeof "facts", sizeof facts);
#define PRINT(type, name) fprintf(stderr, " " #name " %lld", (long long)facts.name);
		FACTS(PRINT)
#undef PRINT
		fprintf(stderr, "\n");
		return facts.exit_code >= 0 ? (int)facts.exit_code : facts.signal > 0 ? 128 + (int)facts.signal : 125;
	}
	for (size_t at = 0; at < size; at += strlen(text + at) + 1)
		fprintf(stderr, " %s", text + at);
	fprintf(stderr, "\n");
	return 125;
}

/* "launcher run": the same run with the shell's own descriptors, to repeat by hand what Python did. */
int run_once(const char *words, size_t size)
{
	int pair[2], own[] = {0, 1, 2};
	char text[2048];
	if (open_server() < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 125;
	struct channel *channel = open_channel(pair[0]);
	if (!channel)
		return 125;
	launch(words, size, channel, own, 3);
	while (server.runs) {
		struct epoll_event event;
		if (epoll_wait(server.epoll, &event, 1, wait_milliseconds()) > 0)
			on_source(event.data.ptr);
		look_at_all();
	}
	remove_cages();
	ssize_t count = recv(pair[1], text, sizeof text, MSG_DONTWAIT);
	return print_end(text, count > 0 ? (size_t)count : 0);
}
