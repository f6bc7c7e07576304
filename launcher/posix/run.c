/*
 * One run, from the fork to the last word. The command's end is seen before its process id is let go of: as long as the
 * command is a zombie no other process can get its id, which is its group's and its session's too, so that whoever kills the
 * group, or looks for its members, meets nobody else's (waitid(2), WNOWAIT).
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct monitor {
	int channel;
	pid_t command;
	struct record *record;
	int64_t deadline; /* of the run, or when it is being ended gently that of its grace; 0: none */
	int64_t grace, terminated; /* ns from SIGTERM to SIGKILL; when the one was sent, 0: not */
	int beginning; /* what ends with execve(2); -1: it has ended, or nobody wants to know */
	bool killed, timed_out, over, alone; /* alone: the warden is gone */
};

static int wake[2] = {-1, -1}; /* from the signal handler to poll(2) */

static void on_child(int number)
{
	int error = errno;
	(void)number;
	if (write(wake[1], "", 1) < 0)
		errno = error; /* it is full: then poll(2) returns anyway */
	errno = error;
}

static int open_private(int *ends)
{
	if (pipe(ends) < 0)
		return -1;
	for (int i = 0; i < 2; i++)
		if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) < 0 || fcntl(ends[i], F_SETFL, O_NONBLOCK) < 0)
			return -1;
	return 0;
}

static int watch_children(void)
{
	struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
	sigemptyset(&action.sa_mask);
	if (open_private(wake) < 0)
		return -1;
	return sigaction(SIGCHLD, &action, NULL);
}

/* --- telling the warden --- */

static int write_all(int socket, const char *bytes, size_t size)
{
	while (size) {
		ssize_t count = write(socket, bytes, size);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return -1;
		bytes += count;
		size -= (size_t)count;
	}
	return 0;
}

/* Its length in four bytes, the most significant first, then the words. A warden that has gone does not matter. */
void tell_warden(int channel, const struct message *message)
{
	uint32_t size = (uint32_t)message->size;
	char head[4] = {(char)(size >> 24), (char)(size >> 16), (char)(size >> 8), (char)size};
	if (write_all(channel, head, sizeof head) == 0)
		write_all(channel, message->text, message->size);
	/* The command has the warden's user, and may have stopped it. */
	kill(getppid(), SIGCONT);
}

void describe_failure(struct message *message, const char *step, const char *object, int error)
{
	message->size = 0;
	add_word(message, "failed");
	add_word(message, step);
	add_word(message, object);
	add_number(message, "errno", error);
}

/* done: it ended by itself, and not by our SIGKILL. A SIGKILL that was not ours is the command's own end. */
static void facts(struct message *message, const struct monitor *monitor, int status)
{
	struct rusage usage = {0};
	const struct record *record = monitor->record;
	bool ours = monitor->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	getrusage(RUSAGE_CHILDREN, &usage);
	message->size = 0;
	add_word(message, "ended");
	add_number(message, "done", !ours);
	add_number(message, "status", ours ? -1 : status);
	add_number(message, "wall", record->ended - record->started);
	add_number(message, "user", nanoseconds(usage.ru_utime));
	add_number(message, "system", nanoseconds(usage.ru_stime));
	add_number(message, "maxrss", usage.ru_maxrss); /* in what unit, the system's manual says: the warden knows */
	add_number(message, "timed_out", monitor->timed_out);
	add_number(message, "terminated", monitor->terminated && (ours || record->ended > monitor->terminated));
}

static void tell_word(int channel, const char *word)
{
	struct message message = {.size = 0};
	add_word(&message, word);
	tell_warden(channel, &message);
}

/* --- watching --- */

/* Before setsid(2) there is no group yet, only the child. */
static void kill_group(struct monitor *monitor)
{
	kill(-monitor->command, SIGKILL);
	if (!monitor->over) {
		kill(monitor->command, SIGKILL);
		monitor->killed = true;
	}
}

/* Has the command ended? It is not reaped: see above. */
static void look_at_command(struct monitor *monitor)
{
	siginfo_t info = {0};
	if (monitor->over || waitid(P_PID, (id_t)monitor->command, &info, WEXITED | WNOWAIT | WNOHANG) < 0 || !info.si_pid)
		return;
	monitor->over = true;
	monitor->record->ended = now();
	kill_group(monitor); /* what it has left in its group; the warden looks for the others */
	tell_word(monitor->channel, "over");
}

/*
 * The command itself gets its SIGTERM from its parent, which knows that the number is still its own; all others from the warden, which
 * is told: nobody is to get two.
 */
static void terminate(struct monitor *monitor)
{
	if (monitor->over || monitor->terminated)
		return;
	monitor->terminated = now();
	monitor->deadline = monitor->terminated + monitor->grace;
	kill(monitor->command, SIGTERM);
	tell_word(monitor->channel, "terminated");
}

static void on_deadline(struct monitor *monitor)
{
	look_at_command(monitor); /* it may have ended by itself in this moment */
	if (!monitor->over && !monitor->terminated)
		monitor->timed_out = true;
	if (!monitor->over && !monitor->terminated && monitor->grace) {
		terminate(monitor);
		return;
	}
	if (!monitor->over)
		kill_group(monitor);
	monitor->deadline = 0;
}

/* The command's time runs from its execve; before that, from the fork. It can't put that off: it has lost the record by then. */
static void look_at_clock(struct monitor *monitor, int64_t timeout)
{
	if (!monitor->deadline || now() < monitor->deadline || monitor->over)
		return;
	if (!monitor->terminated && now() < monitor->record->started + timeout)
		monitor->deadline = monitor->record->started + timeout;
	else
		on_deadline(monitor);
}

/* Whether the command was executed: what failed before is told as that, at the end. */
static void on_beginning(struct monitor *monitor)
{
	close(monitor->beginning);
	monitor->beginning = -1;
	if (!monitor->record->error)
		tell_word(monitor->channel, "began");
}

/* As long as it is not reaped the number is the command's, and nobody else's. */
static void send_signals(struct monitor *monitor, const char *orders, size_t count)
{
	look_at_command(monitor);
	for (size_t i = 0; i < count && !monitor->over; i++)
		if (orders[i] >= 1 && orders[i] <= LAST_SIGNAL)
			kill(monitor->command, orders[i]);
		else if (orders[i] == ORDER_MONITOR_TERMINATE)
			terminate(monitor);
}

/* Returns true when the command may be reaped. */
static bool on_order(struct monitor *monitor)
{
	char orders[16];
	ssize_t count = read(monitor->channel, orders, sizeof orders);
	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (count <= 0) { /* the warden is dead: what can be reached is ended, and nobody is left to be told */
		monitor->alone = true;
		look_at_command(monitor);
		kill_group(monitor);
		return true;
	}
	send_signals(monitor, orders, (size_t)count);
	if (memchr(orders, ORDER_MONITOR_KILL, (size_t)count)) {
		look_at_command(monitor);
		if (!monitor->over)
			kill_group(monitor);
	}
	return memchr(orders, ORDER_MONITOR_REAP, (size_t)count) && monitor->over;
}

static int wait_milliseconds(const struct monitor *monitor)
{
	if (!monitor->deadline || monitor->over)
		return -1;
	int64_t left = (monitor->deadline - now() + 999999) / 1000000;
	return left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

static void wait_until_reaped(struct monitor *monitor, int64_t timeout)
{
	struct pollfd watched[3] = {{.fd = monitor->channel, .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
	char bytes[64];
	for (bool going = true; going;) {
		watched[2] = (struct pollfd){.fd = monitor->beginning, .events = POLLIN}; /* poll(2) ignores a -1 */
		int ready = poll(watched, 3, wait_milliseconds(monitor));
		if (ready > 0 && watched[1].revents)
			while (read(wake[0], bytes, sizeof bytes) > 0)
				;
		if (ready > 0 && watched[2].revents)
			on_beginning(monitor);
		look_at_command(monitor);
		if (monitor->over && monitor->record->error)
			return; /* it never was the command: nothing of it can be left */
		look_at_clock(monitor, timeout);
		if (ready > 0 && watched[0].revents)
			going = !on_order(monitor);
	}
}

/* The run's last word, in *message; -1 when nobody is left to hear it. */
int watch_over(const struct plan *plan, int *descriptors, int channel, struct message *message)
{
	struct monitor monitor = {.channel = channel, .grace = (int64_t)plan->grace};
	int status = 0, told[2] = {-1, -1};
	monitor.record = mmap(NULL, sizeof *monitor.record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	if (monitor.record == MAP_FAILED || watch_children() < 0 || (plan->held && open_private(told) < 0)) {
		describe_failure(message, "launch", "", errno);
		return 0;
	}
	monitor.record->started = now();
	monitor.deadline = plan->timeout ? monitor.record->started + (int64_t)plan->timeout : 0;
	monitor.beginning = told[0];
	monitor.command = fork();
	if (monitor.command == 0)
		enter(plan, descriptors, told[1], monitor.record);
	if (told[1] >= 0)
		close(told[1]);
	if (monitor.command < 0) {
		describe_failure(message, "fork", "", errno);
		return 0;
	}
	for (size_t i = 0; i < plan->n_targets; i++)
		if (descriptors[i] > 2 && descriptors[i] != channel)
			close(descriptors[i]); /* or we would keep the ends of the command's pipes open */
	struct message started = {.size = 0};
	add_word(&started, "started");
	add_number(&started, "pid", monitor.command);
	tell_warden(channel, &started);
	wait_until_reaped(&monitor, (int64_t)plan->timeout);
	while (waitpid(monitor.command, &status, 0) < 0 && errno == EINTR)
		;
	if (monitor.record->error)
		describe_failure(message, monitor.record->step, monitor.record->object, monitor.record->error);
	else
		facts(message, &monitor, status);
	return monitor.alone ? -1 : 0;
}
