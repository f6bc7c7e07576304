/* Who the launcher is, and how a run's first process comes into the world. */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct identity identity = {.home = -1, .root_directory = -1, .proc = -1};

int write_text(int directory, const char *path, const char *text)
{
	int file = openat(directory, path, O_WRONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	ssize_t written = write(file, text, strlen(text));
	int error = errno;
	close(file);
	errno = error;
	return written == (ssize_t)strlen(text) ? 0 : -1;
}

static int map_ourselves(void)
{
	char map[64];
	/* An unprivileged process maps only itself, and may write gid_map only after "deny": user_namespaces(7). */
	if (write_text(AT_FDCWD, "/proc/self/setgroups", "deny") < 0)
		return -1;
	snprintf(map, sizeof map, "0 %u 1", identity.uid);
	if (write_text(AT_FDCWD, "/proc/self/uid_map", map) < 0)
		return -1;
	snprintf(map, sizeof map, "0 %u 1", identity.gid);
	return write_text(AT_FDCWD, "/proc/self/gid_map", map);
}

static bool may_mount(void)
{
	int tree = sys_open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree >= 0)
		close(tree);
	return tree >= 0;
}

static int enter_namespaces(int network)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | network) < 0 || map_ourselves() < 0)
		return -1;
	return mount("", "/", NULL, MS_REC | MS_SLAVE, NULL);
}

static int enter_without_network(void)
{
	return enter_namespaces(0);
}

/*
 * As root the launcher stays in its caller's mount namespace, so that it sees what is mounted later, and mounts nothing
 * there: views are built in namespaces of their own. Without privileges it is root of a user namespace that holds only its
 * user, in a mount namespace that is a slave of the host's. Where that can't be had it goes on without: such plans
 * unshare nothing.
 */
int become_launcher(bool empty_network)
{
	int network = empty_network ? CLONE_NEWNET : 0;
	identity.uid = geteuid();
	identity.gid = getegid();
	identity.root = identity.uid == 0 && may_mount() && unshare(network) == 0;
	/* There is no way back, and a namespace may be given without the capabilities in it (AppArmor): so a child goes first. */
	bool inside = identity.root || (!try(0, enter_without_network) && enter_namespaces(network) == 0);
	identity.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!inside)
		return -1;
	identity.root_directory = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	identity.home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (identity.home >= 0 && identity.root_directory >= 0)
		return 0;
	identity.root = false; /* no /proc: no views, and no identities to be mapped either */
	return -1;
}

int return_home(void)
{
	/* setns(2) goes to the root of the namespace; a caller in a chroot goes back to its own. */
	if (setns(identity.home, CLONE_NEWNS) < 0 || fchdir(identity.root_directory) < 0)
		return -1;
	return chroot(".");
}

static int write_map(pid_t pid, const char *file, uint32_t inside, uint32_t outside)
{
	char path[64], map[64];
	snprintf(path, sizeof path, "%d/%s", pid, file);
	snprintf(map, sizeof map, "%u %u 1", inside, outside);
	return write_text(identity.proc, path, map);
}

/* Who is to be killed first when the host runs out of memory: it can't take that back, for /proc is not its to write. */
static int write_oom_score(const struct plan *plan, pid_t pid)
{
	char path[64];
	snprintf(path, sizeof path, "%d/oom_score_adj", pid);
	return plan->oom_score_adj ? write_text(identity.proc, path, plan->oom_score_adj) : 0;
}

static void release(struct record *record, int value)
{
	__atomic_store_n(&record->go, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, &record->go, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Without privileges the launcher's own namespace knows one user, 0. */
static int write_identity(const struct plan *plan, pid_t pid, uint32_t host_uid)
{
	uint32_t outside = plan->host_uid_count ? host_uid : 0;
	if (write_map(pid, "uid_map", plan->uid, outside) < 0)
		return -1;
	return write_map(pid, "gid_map", plan->gid, outside);
}

/* Container engines refuse clone3(2), whose flags their filters can't see; only a birth into a cgroup needs it. */
static pid_t clone_process(struct clone_args *arguments)
{
	pid_t pid = (pid_t)syscall(SYS_clone3, arguments, sizeof *arguments);
	if (pid >= 0 || errno != ENOSYS || arguments->flags & CLONE_INTO_CGROUP)
		return pid;
	return (pid_t)syscall(SYS_clone, arguments->flags, 0, arguments->pidfd, 0, 0); /* clone(2): the pidfd is its parent_tid */
}

void refuse(struct record *record)
{
	release(record, -1);
}

/* Who the run's first process is, which it waits to be. */
void admit(const struct plan *plan, const struct resources *resources, struct record *record, pid_t pid)
{
	int value = -1;
	if (plan->namespaces & CLONE_NEWUSER && write_identity(plan, pid, resources->host_uid) < 0)
		record_failure(record, "identity", "uid_map", errno);
	else if (write_oom_score(plan, pid) < 0)
		record_failure(record, "oom_score_adj", plan->oom_score_adj, errno);
	else
		value = 1;
	release(record, value);
}

pid_t spawn(const struct plan *plan, const struct resources *resources, struct record *record, int *pidfd)
{
	struct clone_args arguments = {
		.flags = plan->namespaces | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = 0, /* the pidfd tells; a signal would only wake threads that have nothing to do with it */
	};
	if (resources->cgroup >= 0) {
		arguments.flags |= CLONE_INTO_CGROUP;
		arguments.cgroup = (uint64_t)resources->cgroup;
	}
	if (resources->view >= 0 && setns(resources->view, CLONE_NEWNS) < 0) {
		record_failure(record, "setns", "view", errno);
		return -1;
	}
	/* The files of a process that is not dumpable belong to the host's root, and we could not write its maps. */
	prctl(PR_SET_DUMPABLE, 1);
	pid_t pid = clone_process(&arguments);
	if (pid == 0)
		reap(plan, resources, record);
	if (pid < 0)
		record_failure(record, "clone", "", errno);
	else if (!resources->untied)
		admit(plan, resources, record, pid); /* from wherever we are: it waits for that */
	prctl(PR_SET_DUMPABLE, 0);
	if (resources->view >= 0 && return_home() < 0)
		_exit(125); /* in a foreign root nothing may go on; every run ends with us */
	return pid;
}

/* A user namespace whose map says which owner on disk the run's user stands for: mount_setattr(2), MOUNT_ATTR_IDMAP. */
static int make_map(uint32_t from_uid, uint32_t from_gid, uint32_t to)
{
	char path[64];
	prctl(PR_SET_DUMPABLE, 1);
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		await_parents_death();
	prctl(PR_SET_DUMPABLE, 0);
	if (pid < 0)
		return -1;
	int map = -1;
	if (write_map(pid, "uid_map", from_uid, to) == 0 && write_map(pid, "gid_map", from_gid, to) == 0) {
		snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
		map = open(path, O_RDONLY | O_CLOEXEC);
	}
	int error = errno;
	kill(pid, SIGKILL); /* our own child and not yet waited for: the number is still its */
	waitpid(pid, NULL, 0);
	errno = error;
	return map;
}

int map_fd(uint32_t from_uid, uint32_t from_gid, uint32_t to_uid)
{
	enum { SIZE = 256 };
	static struct { uint32_t uid, gid, to; int fd; } cache[SIZE];
	static unsigned used, victim;
	for (unsigned i = 0; i < used; i++)
		if (cache[i].uid == from_uid && cache[i].gid == from_gid && cache[i].to == to_uid)
			return cache[i].fd;
	int fd = make_map(from_uid, from_gid, to_uid);
	if (fd < 0)
		return -1;
	unsigned place = used < SIZE ? used++ : victim++ % SIZE;
	if (cache[place].fd > 0)
		close(cache[place].fd);
	cache[place].uid = from_uid, cache[place].gid = from_gid, cache[place].to = to_uid, cache[place].fd = fd;
	return fd;
}
