/*
 * Theory of operation
 *
 * The launcher does what must happen between fork and exec, where Python must not run, and watches over it. It knows
 * no policy: a plan arrives as words (words.c), and is carried out word by word or fails.
 *
 * Processes. The Python process starts one launcher and holds the other end of its control socket. The launcher
 * forks, for each run, a reaper: pid 1 of the run's own pid namespace, which confines itself and starts the command
 * as its child (enter.c). When the command ends the reaper ends, and the kernel ends what is left in the namespace. Where it is
 * alone by then it says so first: the run has ended, and taking down its namespaces, which takes as long as a small command, is
 * waited for by nobody (run.c). When the launcher ends the reapers get SIGKILL (PR_SET_PDEATHSIG; linux/life.c); when the Python
 * process ends the launcher sees its pidfd, kills its runs and ends. Where there are no namespaces a reaper is a subreaper instead, in a
 * Landlock domain of the run; it ends what is left itself, also when the launcher ends (SIGTERM), and what a reaper that was
 * killed leaves comes to the launcher (linux/sweep.c).
 *
 * Plans and prepared sandboxes. Words are read once: what differs from run to run is the command, which comes last (plans.c). For a
 * plan whose runs follow one another, or that asks for it, reapers are forked ahead while a processor is free (prepare.c). Each
 * builds and confines its run, but for the command, and its child says on a socket that it waits, whereupon what it has used until
 * then is looked at. A run takes the oldest one, by sending the command and its streams; its deadline and its figures begin
 * there (start.c). It is used once. It goes when its plan is not used for a while, when the host's mounts change, or when something
 * else lies where its own were taken from.
 *
 * Channels. Over the control socket (SOCK_SEQPACKET) Python sends a run: words, and descriptors by SCM_RIGHTS. The first descriptor
 * is a channel: a socket for one run at a time, on which the launcher sends what becomes of it: one message "failed" in words or
 * "facts" in numbers. Python may send "kill" on it, and closing it kills the run too; when the run has ended the next one may come over
 * it (channel.c). "idmap PATH" asks for a trial instead of a run. What happens inside the reaper before execve comes back through a
 * record in memory that both share; so nobody writes to Python but run.c and handle.c, and for the greeting serve.c.
 *
 * Waiting. One thread, one epoll instance: control socket, the caller's pidfd, the host's table of mounts, the eventfd on which
 * all reapers tell that their runs have ended, all channels, and for each run the reaper's pidfd and the out-of-memory eventfd;
 * deadlines, samples and the time to prepare are its timeout. Where cgroup v1 is used each set of cgroups has a thread that only
 * clones, as long as few runs are alive (linux/cgroup.c); where nobody measures, a thread takes samples (linux/sampler.c).
 *
 *     launcher serve [empty-network]       as Python starts it, the control socket as standard input
 *     launcher run WORDS...                one run, with descriptors 0, 1 and 2; prints the outcome on 2
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void raise_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * What the caller ignores would be ignored by every command, and what it blocks not be heard by reapers. By the system calls themselves:
 * libc keeps two signals for itself.
 */
static void default_signals(void)
{
	static const uint64_t nothing[4]; /* the kernel's struct sigaction: SIG_DFL, no flags, no mask */
	for (int number = 1; number < NSIG; number++)
		syscall(SYS_rt_sigaction, number, nothing, NULL, sizeof(uint64_t));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, nothing, NULL, sizeof(uint64_t));
}

/* Signals of the caller's terminal are the caller's business: it decides what becomes of its runs. */
static void leave_caller(void)
{
	setsid();
	umask(0);
	default_signals();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	if (chdir("/") < 0)
		_exit(125);
	raise_descriptors();
	set_slice(100000);
}

char *heap;

int main(int argc, char **argv)
{
	heap = sbrk(0);
	if (argc >= 2 && !strcmp(argv[1], "serve")) {
		leave_caller();
		become_launcher(argc > 2 && !strcmp(argv[2], "empty-network"));
		return serve();
	}
	if (argc >= 3 && !strcmp(argv[1], "run")) {
		size_t size;
		bool host = false;
		for (int i = 2; i + 1 < argc && strcmp(argv[i], "exec"); i++)
			host = host || (!strcmp(argv[i], "network") && !strcmp(argv[i + 1], "host"));
		char *words = join_words(argc - 2, argv + 2, &size);
		leave_caller();
		if (!words) {
			fprintf(stderr, "launcher: %s\n", strerror(errno));
			return 125;
		}
		become_launcher(!host); /* where it can't, words that need namespaces fail at their step */
		return run_once(words, size);
	}
	fprintf(stderr, "proc-sandbox launcher " VERSION "\nusage: launcher serve [empty-network] | launcher run WORDS...\n");
	return 125;
}
