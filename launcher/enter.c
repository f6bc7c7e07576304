/*
 * From the clone to execve: the ordered steps of a run. The order is the security argument.
 *
 * Two processes run this code. The reaper is pid 1 of the new pid namespace: it builds the view, gives up every
 * privilege and confines itself exactly as the command will be confined; then it starts the command as its child
 * with vfork(2) and waits. Of a prepared sandbox the child goes as far, in the reaper's memory still, and is told the command later, by
 * await_command(). When the command ends the reaper ends, and with it the kernel ends every process of the
 * namespace (pid_namespaces(7)). Between the clone and the end nothing here calls malloc(3) (signal-safety(7)).
 *
 * Where there are no namespaces the reaper is a subreaper (PR_SET_CHILD_SUBREAPER): whatever its descendants do, they stay
 * its descendants, and before it ends it ends them all (linux/sweep.c). It lives in a Landlock domain of the run, from
 * which no signal goes out, and the command in a domain inside that one, from which the reaper can't be reached.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HIGH = 64 }; /* descriptors are moved above every target first; not further, for a long table costs time */

/* Only what the run needs stays open: copies of other runs' sockets would keep those runs from being seen to end. */
static void keep_descriptors(const struct plan *plan, struct resources *own, struct record *record)
{
	int high = HIGH, *keep[plan->n_targets + plan->n_mounts + 2]; /* at most 970; each page of the stack is copied for us */
	size_t count = 0;
	for (size_t i = 0; i < plan->n_targets && own->command < 0; i++) {
		keep[count++] = &own->descriptors[i];
		if (plan->targets[i] >= high)
			high = plan->targets[i] + 1;
	}
	for (size_t i = 0; i < plan->n_mounts; i++)
		if (own->trees[i] >= 0)
			keep[count++] = &own->trees[i];
	keep[count++] = &own->ends;
	if (own->command >= 0)
		keep[count++] = &own->command;
	/* Those already above it are moved too: then what is kept lies in ascending order, and all between it is closed. */
	for (size_t i = 0; i < count; i++)
		if (*keep[i] >= high)
			high = *keep[i] + 1;
	unsigned closed = 0; /* everything below, but for what is kept */
	for (size_t i = 0; i < count; i++, high++) {
		high = fcntl(*keep[i], F_DUPFD_CLOEXEC, high);
		if (high < 0) {
			errno = errno == EINVAL ? EMFILE : errno; /* EINVAL: above RLIMIT_NOFILE */
			die(record, "descriptors", "RLIMIT_NOFILE of the launcher");
		}
		*keep[i] = high;
	}
	for (size_t i = 0; i < count; i++) {
		unsigned kept = (unsigned)*keep[i];
		if (kept > closed && syscall(SYS_close_range, closed, kept - 1, 0U) < 0)
			die(record, "descriptors", "");
		closed = kept + 1;
	}
	if (syscall(SYS_close_range, closed, ~0U, 0U) < 0)
		die(record, "descriptors", "");
}

static void close_all_but(int kept, struct record *record)
{
	if ((kept && syscall(SYS_close_range, 0U, (unsigned)kept - 1, 0U) < 0) ||
	    syscall(SYS_close_range, (unsigned)kept + 1, ~0U, 0U) < 0)
		die(record, "descriptors", "");
}

/* Who is not tied to the launcher yet looks whether it is alive: nobody else would ever wake it. */
static void await_identity(const struct resources *own, struct record *record)
{
	static const struct timespec patience = {.tv_nsec = 100000000};
	while (!__atomic_load_n(&record->go, __ATOMIC_ACQUIRE)) {
		syscall(SYS_futex, &record->go, FUTEX_WAIT, 0, own->untied ? &patience : NULL, NULL, 0);
		if (own->untied && has_parent_died(true))
			_exit(125);
	}
	if (record->go < 0)
		_exit(125); /* the launcher has written why */
}

static void bring_up_loopback(struct record *record)
{
	struct ifreq request = {.ifr_name = "lo"};
	int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (socket_ < 0)
		die(record, "loopback", "socket");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(socket_, SIOCSIFFLAGS, &request) < 0)
		die(record, "loopback", "lo");
	close(socket_);
}

static void mount_part(const struct plan *plan, enum part part, const struct resources *own, struct record *record)
{
	const char *object = "", *step = "mount";
	if (apply_mounts(plan, part, own->trees, &object, &step) < 0)
		die(record, step, object);
}

/* What the namespaces show belongs to nobody of theirs, so it can be made while the launcher still writes who we are. */
static void prepare_namespaces(const struct plan *plan, const struct resources *own, struct record *record)
{
	if (plan->namespaces & CLONE_NEWUTS && plan->hostname && sethostname(plan->hostname, strlen(plan->hostname)) < 0)
		die(record, "hostname", plan->hostname);
	if (plan->network == NETWORK_LOOPBACK)
		bring_up_loopback(record);
	mount_part(plan, PART_PROC, own, record);
}

static void build_view(const struct plan *plan, const struct resources *own, struct record *record)
{
	mount_part(plan, PART_OWN, own, record);
	for (size_t i = 0; i < plan->n_mounts; i++)
		if (own->trees[i] >= 0)
			close(own->trees[i]);
}

/*
 * After this the run cannot outlive the launcher, until the next change of credentials, which clears PR_SET_PDEATHSIG. The
 * death of pid 1 is everybody's; another reaper is told, and ends what is left.
 */
static void tie_to_launcher(const struct plan *plan, const struct resources *own, struct record *record)
{
	if (prctl(PR_SET_PDEATHSIG, plan->reach == REACH_NAMESPACE ? SIGKILL : SIGTERM) < 0)
		die(record, "pdeathsig", "");
	if (has_parent_died(own->untied))
		_exit(125); /* and nobody would tell us any more */
}

static void arrange_descriptors(const struct plan *plan, const struct resources *own, struct record *record)
{
	for (size_t i = 0; i < plan->n_targets; i++)
		if (dup2(own->descriptors[i], plan->targets[i]) < 0)
			die(record, "descriptors", "");
	/* The originals are close-on-exec and lie above every target. */
}

/*
 * The terminal came by a name of the host's, under which Landlock lets nobody open it again (/dev/stdout, proc_pid_fd(5)): so it is
 * opened by the one that it has in the view. Who leads a session and has no terminal may take one that nobody has (ioctl_tty(2)).
 */
static void take_terminal(const struct plan *plan, struct record *record)
{
	struct stat given, found;
	if (!plan->terminal)
		return;
	if (strcmp(plan->terminal, "-")) {
		int own = open(plan->terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (own < 0 || fstat(0, &given) < 0 || fstat(own, &found) < 0)
			die(record, "terminal", plan->terminal);
		if (given.st_dev != found.st_dev || given.st_ino != found.st_ino) {
			errno = ENXIO;
			die(record, "terminal", plan->terminal);
		}
		for (int i = 0; i < 3; i++)
			if (dup2(own, i) < 0)
				die(record, "terminal", plan->terminal);
	}
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		die(record, "terminal", plan->terminal);
}

/* What the command's own process is, whatever the command. No signal is blocked: in the launcher none is (main.c). */
static void begin_process(const struct start *start, struct record *record)
{
	static const int defaults[] = {SIGPIPE, SIGUSR1, SIGCHLD, SIGTERM, SIGINT, SIGHUP};
	for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
		signal(defaults[i], SIG_DFL);
	if (setsid() < 0)
		die(record, "setsid", "");
	umask(start->umask);
}

static void confine(const struct plan *plan, const struct resources *own, struct record *record)
{
	begin_process(&plan->start, record);
	if (plan->reach != REACH_NAMESPACE)
		restrict_files(plan, record);        /* before it has no descriptors left to open what the rules name */
	arrange_descriptors(plan, own, record);
	take_terminal(plan, record);
	set_rlimits(&plan->start, record);           /* here, for pid 1 has to outlive whatever they end */
	if (plan->reach != REACH_NAMESPACE)          /* else all of this is done under it: it lets everybody do such things to himself */
		restrict_syscalls(plan, own->filter, record);
}

static noreturn void execute(const struct start *start, const struct command *command, struct record *record)
{
	/* Inside the view, so that a descriptor of the host can never be the working directory (CVE-2024-21626). */
	if (chdir(start->cwd ? start->cwd : "/") < 0)
		die(record, "chdir", start->cwd);
	execve(command->path, command->argv, start->envp);
	die(record, "exec", command->path);
}

/* The child of a prepared sandbox, and what it needs of the launcher's memory, which the reaper lets go meanwhile. */
static struct {
	struct start start;
	int command;           /* where it is told the command */
	struct record *record;
	_Alignas(16) char stack[64 << 10];
} parked;

static size_t count_pointers(char *const *pointers)
{
	size_t count = 0;
	while (pointers[count])
		count++;
	return count;
}

static char *put(char **at, const char *text)
{
	char *begin = *at;
	*at = stpcpy(begin, text) + 1;
	return begin;
}

/* The strings are copied too. */
static void keep_start(const struct start *start, struct record *record)
{
	const char *cwd = start->cwd ? start->cwd : "/";
	size_t count = count_pointers(start->envp), size = (count + 1) * sizeof *start->envp + strlen(cwd) + 1;
	for (size_t i = 0; i < count; i++)
		size += strlen(start->envp[i]) + 1;
	char **envp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (envp == MAP_FAILED)
		die(record, "launch", "memory");
	char *at = (char *)(envp + count + 1);
	for (size_t i = 0; i < count; i++)
		envp[i] = put(&at, start->envp[i]);
	envp[count] = NULL;
	parked.start = *start;
	parked.start.cwd = put(&at, cwd);
	parked.start.envp = envp;
}

/* The streams have come: three, or two, and standard input is /dev/null. They have the lowest numbers that were free: unix(7). */
static bool arrange_streams(const struct msghdr *header)
{
	int came[3];
	const struct cmsghdr *part = CMSG_FIRSTHDR(header);
	size_t count = part && part->cmsg_type == SCM_RIGHTS ? (part->cmsg_len - CMSG_LEN(0)) / sizeof *came : 0;
	if (header->msg_flags & (MSG_TRUNC | MSG_CTRUNC) || (count != 2 && count != 3))
		return false;
	memcpy(came, CMSG_DATA(part), count * sizeof *came);
	for (size_t i = 0; i < count; i++)
		if (came[i] != (int)(3 - count + i) && dup2(came[i], (int)(3 - count + i)) < 0)
			return false;
	return came[count - 1] <= 2 || close(came[count - 1]) == 0;
}

/*
 * A prepared sandbox: confined, it waits to be told the command. Nothing else is open here than the socket on which that comes, and
 * /dev/null. That is an open file of its own: by the flags, owner and locks of one for all runs could tell each other things.
 */
static noreturn void await_command(void)
{
	static char words[PREPARED_WORDS], *arguments[PREPARED_WORDS]; /* a word may be empty, of its NUL alone */
	union { char room[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } ancillary;
	struct iovec body = {words, sizeof words};
	struct msghdr header = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
	struct record *record = parked.record;
	struct command command;
	struct rusage usage;
	const char *why;
	if (open("/dev/null", O_RDONLY) != 0)
		die(record, "descriptors", "/dev/null");
	words[0] = '\0', arguments[0] = NULL; /* so that the pages are there when time counts */
	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		record->user = nanoseconds(usage.ru_utime);
		record->system = nanoseconds(usage.ru_stime);
	}
	/* From here on it uses nothing: on_parked(). Who has told the command already does not hear it any more. */
	(void)send(parked.command, "", 1, MSG_NOSIGNAL);
	ssize_t size;
	do
		size = recvmsg(parked.command, &header, 0);
	while (size < 0 && errno == ECONNRESET); /* that was not read, which is told before what was said (unix(7)) */
	if (size <= 0)
		_exit(125); /* nobody needs it any longer */
	if (!arrange_streams(&header) || parse_command(words, (size_t)size, arguments, &command, &why) < 0) {
		errno = EBADMSG;
		die(record, "words", "");
	}
	record->told = 1;
	execute(&parked.start, &command, record);
}

static int be_prepared(void *unused)
{
	(void)unused;
	close_all_but(parked.command, parked.record);
	begin_process(&parked.start, parked.record);
	set_rlimits(&parked.start, parked.record);
	await_command();
}

/*
 * Not by vfork(2): who waits in it hears no signal but SIGKILL, and counts as load. But in the same memory, on a stack of its own:
 * to take down a copy of the memory would cost execve(2) as much time as all its other work. They share errno too; when the
 * child's calls fail the reaper waits. Only where memory is sampled the filter, which the reaper has already, wants a copy.
 */
static pid_t prepare_command(const struct plan *plan, const struct resources *own, struct record *record)
{
	bool shares = !plan->seccomp || plan->seccomp_options & FILTER_BUFFERS;
	parked.command = own->command;
	parked.record = record;
	return clone(be_prepared, parked.stack + sizeof parked.stack, SIGCHLD | (shares ? CLONE_VM : 0), NULL);
}

static pid_t start_command(const struct plan *plan, const struct resources *own, struct record *record)
{
	pid_t pid = vfork();
	if (pid)
		return pid;
	confine(plan, own, record);
	execute(&plan->start, &plan->command, record);
}

/*
 * As long as we have it, each page of it that the launcher writes to is copied for us (fork(2)). With a thousand runs alive that is most
 * of what they take.
 */
__attribute__((noinline)) /* its frame is the last that is needed */
static void let_go_of_memory(const struct borrowed_memory *memory)
{
	enum { DEPTH = 64 << 10, HERE = 4096 }; /* of the stack, what the steps before have used: a thread has 256 KiB */
	const char *frame = __builtin_frame_address(0);
	let_go(frame - DEPTH, frame - HERE);
	for (size_t i = 0; i < sizeof memory->parts / sizeof *memory->parts; i++)
		let_go(memory->parts[i].begin, memory->parts[i].end);
}

static struct { struct record *record; enum reach reach; pid_t command; } orders; /* for the signal handler */

/* The command's number is its own until we have waited for it, and nobody else's is named: what is left over goes to nobody. */
static void pass_on_signals(void)
{
	uint64_t one = __atomic_exchange_n(&orders.record->signals, 0, __ATOMIC_ACQ_REL);
	uint64_t all = __atomic_exchange_n(&orders.record->tree_signals, 0, __ATOMIC_ACQ_REL);
	if (orders.reach == REACH_CHILDREN) /* there is no call that reaches all, and no more */
		one |= all, all = 0;
	for (int number = 1; (one | all) >> (number - 1); number++) {
		if (one >> (number - 1) & 1 && orders.command > 0)
			kill(orders.command, number);
		if (all >> (number - 1) & 1)
			kill(-1, number);
		if (number == 64)
			break;
	}
}

/*
 * Only the launcher may order. Who sent a signal can't be told for sure: where no more signals may be queued the kernel
 * drops what is known of the sender. So the order stands in the record, which the command can't reach, and a signal of the
 * command's own makes us do once more what holds anyway.
 */
static void on_signal(int number)
{
	static int obeyed = ORDER_GO;
	if (number == SIGTERM) /* the launcher is dead, or somebody wants us to be: nobody is left to order anything else */
		__atomic_store_n(&orders.record->order, ORDER_KILL, __ATOMIC_RELEASE);
	pass_on_signals();
	int order = __atomic_load_n(&orders.record->order, __ATOMIC_ACQUIRE);
	if (order == ORDER_KILL)
		kill_everything(orders.reach);
	else if (order == ORDER_STOP && orders.reach != REACH_CHILDREN)
		kill(-1, SIGSTOP); /* again each time: something inside may have continued itself */
	else if (obeyed == ORDER_STOP && orders.reach != REACH_CHILDREN)
		kill(-1, SIGCONT);
	obeyed = order;
}

/* kill(-1) reaches the whole tree at once, whatever it forks meanwhile: the ladder's CPU limit, and the end without a pid 1. */
static void obey_launcher(const struct plan *plan, struct record *record)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	orders.record = record;
	orders.reach = plan->reach;
	sigaction(SIGUSR1, &action, NULL);
	if (orders.reach != REACH_NAMESPACE)
		sigaction(SIGTERM, &action, NULL);
}

/* In place of a pid namespace; before the launcher's death could be missed. */
static void hold_descendants(const struct plan *plan, struct record *record)
{
	if (plan->reach == REACH_NAMESPACE)
		return;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die(record, "subreaper", "");
	if (plan->reach == REACH_DOMAIN)
		restrict_signals(record);
}

/* Whatever the command has left. Where it was ordered, the command's own end says nothing of how the run ended. */
static void end_everything(struct record *record)
{
	if (orders.reach == REACH_NAMESPACE)
		return;
	bool ordered = __atomic_load_n(&record->order, __ATOMIC_ACQUIRE) == ORDER_KILL;
	kill_everything(orders.reach);
	await_everything(orders.reach);
	if (ordered)
		_exit(125);
}

/*
 * Whether nobody else is left: pid 1 is the parent of all who have lost theirs, and with no children it is alone in its namespace
 * (pid_namespaces(7)). Who is still there is ended by our own end.
 */
static bool is_alone(void)
{
	pid_t pid;
	do
		pid = (pid_t)wait4(-1, NULL, WNOHANG | __WALL, NULL);
	while (pid > 0);
	return pid < 0 && errno == ECHILD;
}

/*
 * Then the launcher can tell how the run ended while we end: taking down the mounts takes as long as a small command. An eventfd
 * wakes it on a processor that is free, where a pipe would have it wait for ours.
 */
static void tell_launcher(int ends)
{
	static const uint64_t one = 1;
	if (write(ends, &one, sizeof one) < 0)
		_exit(125); /* it will see us end */
}

/*
 * What our end takes is not to come in between: the kernel's grace periods for it take the processor of who tells. Our parent's death
 * is ours, and so is the end of the run by any other way.
 */
static void await_dismissal(const struct record *record)
{
	/* Nobody is left to be ended: from now on SIGTERM, which tells a reaper that is no pid 1, is the end, or has been heard. */
	signal(SIGTERM, SIG_DFL);
	while (__atomic_load_n(&record->order, __ATOMIC_ACQUIRE) != ORDER_KILL &&
	       !__atomic_load_n(&record->dismissed, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &record->dismissed, FUTEX_WAIT, 0, NULL, NULL, 0);
}

/*
 * Who may be sent signals keeps its number until no more are sent: it is only looked at first (waitid(2), WNOWAIT), and then waited for
 * by its number, as is any other that ends before.
 */
static pid_t next_to_end(void)
{
	siginfo_t info = {0};
	if (orders.command <= 0)
		return -1;
	if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0)
		return -1; /* wait4(2) will tell why */
	if (info.si_pid == orders.command)
		orders.command = 0;
	return info.si_pid;
}

static noreturn void wait_for(pid_t command, bool prepared, int ends, struct record *record)
{
	struct rusage usage;
	int status;
	for (;;) {
		pid_t pid = wait4(next_to_end(), &status, 0, NULL);
		if (pid == command)
			break;
		if (pid < 0 && errno != EINTR)
			die(record, "wait", "");
	}
	record->ended = now();
	if (record->error)
		_exit(125); /* the command's process has ended before it was one */
	if (prepared && !record->told) { /* somebody has killed who was to become the command */
		record_failure(record, "prepared", "", ECANCELED);
		_exit(125);
	}
	record->status = status;
	end_everything(record);
	bool alone = is_alone();
	if (getrusage(RUSAGE_CHILDREN, &usage) == 0) { /* without what it took to prepare the command's process */
		record->user = nanoseconds(usage.ru_utime) - record->user;
		record->system = nanoseconds(usage.ru_stime) - record->system;
		record->max_rss = usage.ru_maxrss * INT64_C(1024);
	}
	__atomic_store_n(&record->done, 1, __ATOMIC_RELEASE);
	if (alone) {
		__atomic_store_n(&record->alone, 1, __ATOMIC_RELEASE);
		tell_launcher(ends);
		await_dismissal(record);
	}
	_exit(0);
}

/* Up to where the command's process is there. What this takes of the stack is not to stay. */
__attribute__((noinline))
static pid_t set_up(const struct plan *plan, const struct resources *resources, struct record *record, int *ends)
{
	struct resources own = *resources;
	keep_descriptors(plan, &own, record);   /* first: nothing of another run is within reach of what follows */
	if (!own.untied)
		tie_to_launcher(plan, &own, record); /* before the first wait: nobody else would ever wake us */
	drop_bounding_set(plan, record);        /* as long as it may be done */
	prepare_namespaces(plan, &own, record);
	await_identity(&own, record);
	set_identity(plan, own.host_uid, record); /* before the view: what it makes belongs to the command's user */
	build_view(plan, &own, record);         /* last look at what the host gave */
	add_niceness(plan->nice, record);
	drop_privileges(record);                /* capabilities(7), then no_new_privs and non-dumpable */
	if (plan->reach == REACH_NAMESPACE)
		restrict_files(plan, record);   /* landlock(7) needs no_new_privs */
	hold_descendants(plan, record);
	obey_launcher(plan, record);            /* before the tie: without a pid 1 it needs our hand */
	tie_to_launcher(plan, &own, record);    /* again, as what it is now */
	set_slice(0);                           /* what we do at the end can wait for everybody else */
	if (own.command >= 0)
		keep_start(&plan->start, record);
	/* Last. Without a pid namespace we may name processes that the command may not; with one it holds for both of us, and who ends
	   last frees it, while nobody waits: that is more work than all else that the command's end is. */
	if (plan->reach == REACH_NAMESPACE)
		restrict_syscalls(plan, own.filter, record);
	if (own.command < 0)
		record->started = now();        /* else it starts when the launcher says so */
	pid_t command = own.command < 0 ? start_command(plan, &own, record) : prepare_command(plan, &own, record);
	if (command < 0)
		die(record, "fork", "");
	*ends = own.ends;
	if (plan->held && !record->error) {
		orders.command = command;
		__atomic_store_n(&record->command, command, __ATOMIC_RELEASE);
		tell_launcher(own.ends);
		pass_on_signals();              /* sent before there was anybody to take them */
	}
	return command;
}

noreturn void reap(const struct plan *plan, const struct resources *resources, struct record *record)
{
	bool prepared = resources->command >= 0;
	const struct borrowed_memory *memory = resources->memory;
	int ends = -1;
	pid_t command = set_up(plan, resources, record, &ends);
	if (__atomic_load_n(&record->order, __ATOMIC_ACQUIRE) == ORDER_KILL)
		kill_everything(orders.reach);  /* ordered before there was anything to kill */
	/* All but the launcher's ear, or the reaper would keep the ends of the command's pipes open. */
	close_all_but(ends, record);
	let_go_of_memory(memory);
	wait_for(command, prepared, ends, record);
}
