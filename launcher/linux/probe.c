/* What this machine can do, found out by doing it: each line of the answer is a word pair "NAME RESULT". */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Runs a trial in a child born with these flags; 0, or the errno with which it failed. */
int try(uint64_t flags, int (*trial)(void))
{
	int status;
	pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(!trial || trial() == 0 ? 0 : errno ? errno : EIO);
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

static int mount_proc(void)
{
	return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static int mount_tmpfs(void)
{
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	return mount("probe", "/proc", "tmpfs", MS_NOSUID, "mode=755");
}

static int install_filter(void)
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET, SECCOMP_RET_ALLOW)};
	struct sock_fprog program = {1, allow};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static int idmap_root(void)
{
	int map = map_fd(0, 0, 65534);
	int tree = sys_open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (map < 0 || tree < 0)
		return -1;
	return sys_mount_setattr(tree, 0, MOUNT_ATTR_IDMAP, 0, map);
}

static int mount_both(void)
{
	return mount_proc() < 0 || mount_tmpfs() < 0 ? -1 : 0;
}

/* Alone, where not all of them can be had together: then the answer is which of them fails. */
static int try_namespaces(bool together, uint64_t flags, int (*trial)(void))
{
	return together ? 0 : try(CLONE_NEWUSER | flags, trial);
}

/* Who gives a run a user of its own must still be able to end it, and to give a directory to that user and remove it. */
static int become_another(void)
{
	static const int needed[] = {CAP_KILL, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) < 0)
		return -1;
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
		if (!(data[CAP_TO_INDEX(needed[i])].effective & CAP_TO_MASK(needed[i]))) {
			errno = EPERM;
			return -1;
		}
	enum { NOBODY = 65534 };
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) < 0)
		return -1;
	return (int)syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY);
}

/* What the sampler reads of its children: a sandbox around us may hide it, or proc(5) with hidepid. */
static int look_at_child(void)
{
	static const char *const files[] = {"stat", "statm", "task/%d/children"};
	char path[64], file[32];
	int opened = 0;
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
	if (pid == 0)
		await_parents_death();
	for (size_t i = 0; pid > 0 && opened >= 0 && i < sizeof files / sizeof *files; i++) {
		snprintf(file, sizeof file, files[i], pid);
		snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
		opened = open(path, O_RDONLY | O_CLOEXEC);
		if (opened >= 0)
			close(opened);
	}
	int error = errno;
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	errno = error;
	return pid > 0 && opened >= 0 ? 0 : -1;
}

/* Refused where /proc is read-only: in a sandbox, whose own score stays. */
static int raise_oom_score(void)
{
	prctl(PR_SET_DUMPABLE, 1); /* else its files are the host's root's: proc_pid(5) */
	return write_text(AT_FDCWD, "/proc/self/oom_score_adj", "1000");
}

/* A kernel or filter that knows it finds fault with the size. */
static int try_clone3(void)
{
	return syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL ? 0 : errno;
}

static int open_by_rules(void)
{
	return open_strictly("/", O_PATH) < 0 ? -1 : 0;
}

/* Since 5.9, the newest that every run needs; a kernel that knows it finds fault with the arguments. */
static int try_close_range(void)
{
	return syscall(SYS_close_range, 1U, 0U, 0U) < 0 && errno != EINVAL ? errno : 0;
}

size_t probe(char *words, size_t size)
{
	bool all = try(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP,
		       mount_both) == 0;
	/* Through a helper that becomes what the launcher becomes, then tries what the runs would do. */
	const struct { const char *name; int result; } results[] = {
		{"root", identity.root ? 0 : EPERM},
		{"home", identity.home >= 0 ? 0 : EPERM},
		{"userns", try_namespaces(all, 0, NULL)},
		{"mountns", try_namespaces(all, CLONE_NEWNS, mount_tmpfs)},
		{"pidns", try_namespaces(all, CLONE_NEWNS | CLONE_NEWPID, mount_proc)},
		{"ipcns", try_namespaces(all, CLONE_NEWIPC, NULL)},
		{"utsns", try_namespaces(all, CLONE_NEWUTS, NULL)},
		{"netns", try_namespaces(all, CLONE_NEWNET, NULL)},
		{"cgroupns", try_namespaces(all, CLONE_NEWCGROUP, NULL)},
		{"setuid", try(0, become_another)},
		{"clone3", try_clone3()},
		{"children", try(0, look_at_child)},
		{"oom_score_adj", try(0, raise_oom_score)},
		{"openat2", try(0, open_by_rules)},
		{"close_range", try_close_range()},
		{"seccomp", try(0, install_filter)},
		{"idmap", identity.root ? try(0, idmap_root) : EPERM},
		{"landlock-abi", landlock_abi()},
	};
	size_t used = 0;
	for (size_t i = 0; i < sizeof results / sizeof *results; i++)
		used += (size_t)snprintf(words + used, size - used, "%s%c%d", results[i].name, 0, results[i].result) + 1;
	return used;
}
