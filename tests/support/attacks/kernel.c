/*
 * One system call, and what came of it.
 *   kernel call NAME            a call from the table below, with arguments that can do no harm
 *   kernel number N             the call of that number, without arguments
 *   kernel ioctl FD REQUEST     with the address of the byte 'x'; REQUEST may be wider than 32 bits
 *   kernel clone|clone3|unshare FLAG
 *   kernel thread               pthread_create
 *   kernel socket FAMILY TYPE PROTOCOL
 *   kernel chmod|fchmod|fchmodat|fchmodat2|open|openat2|mknod|mkdir|unnamed PATH   try to get a set-user-ID
 *   kernel old_open|old_creat PATH   the same by the calls that libc does not make any more   file
 * Prints TRIED, then ESCAPED or REFUSED ERRNO.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define BAD ((long)0x10) /* an address that is never mapped */

struct call { const char *name; long number; long arguments[6]; };

static const struct call calls[] = {
	{"acct", SYS_acct, {BAD}},
	{"add_key", SYS_add_key, {BAD, BAD, 0, 0, 0}},
	{"adjtimex", SYS_adjtimex, {BAD}},
	{"bpf", SYS_bpf, {0, BAD, 8}},
	{"chroot", SYS_chroot, {BAD}},
	{"clock_adjtime", SYS_clock_adjtime, {0, BAD}},
	{"clock_settime", SYS_clock_settime, {0, BAD}},
	{"delete_module", SYS_delete_module, {BAD, 0}},
	{"fanotify_init", SYS_fanotify_init, {-1, -1}},
	{"finit_module", SYS_finit_module, {-1, BAD, 0}},
	{"fsconfig", SYS_fsconfig, {-1, 0, 0, 0, 0}},
	{"fsmount", SYS_fsmount, {-1, 0, 0}},
	{"fsopen", SYS_fsopen, {BAD, 0}},
	{"fspick", SYS_fspick, {-1, BAD, 0}},
	{"init_module", SYS_init_module, {BAD, 0, BAD}},
	{"io_uring_enter", SYS_io_uring_enter, {-1, 0, 0, 0, 0, 0}},
	{"io_uring_register", SYS_io_uring_register, {-1, 0, 0, 0}},
	{"io_uring_setup", SYS_io_uring_setup, {1, BAD}},
	{"kcmp", SYS_kcmp, {0, 0, 99, 0, 0}},
	{"kexec_load", SYS_kexec_load, {0, 99, BAD, -1}},
	{"keyctl", SYS_keyctl, {0, -3, 0}},
	{"lookup_dcookie", SYS_lookup_dcookie, {0, BAD, 0}},
	{"migrate_pages", SYS_migrate_pages, {0, 0, 0, 0}},
	{"mount", SYS_mount, {BAD, BAD, BAD, 0, 0}},
	{"mount_setattr", SYS_mount_setattr, {-1, BAD, 0, BAD, 0}},
	{"move_mount", SYS_move_mount, {-1, BAD, -1, BAD, 0}},
	{"move_pages", SYS_move_pages, {0, 0, 0, 0, 0, -1}},
	{"name_to_handle_at", SYS_name_to_handle_at, {-1, BAD, BAD, BAD, 0}},
	{"nfsservctl", SYS_nfsservctl, {0}},
	{"open_by_handle_at", SYS_open_by_handle_at, {-1, BAD, 0}},
	{"open_tree", SYS_open_tree, {-1, BAD, 0}},
	{"perf_event_open", SYS_perf_event_open, {BAD, 0, -1, -1, 0}},
	{"personality", SYS_personality, {0x0040000}}, /* ADDR_NO_RANDOMIZE */
	{"personality_exec", SYS_personality, {0x0400000}}, /* READ_IMPLIES_EXEC */
	{"pidfd_getfd", SYS_pidfd_getfd, {-1, 0, 0}},
	{"pivot_root", SYS_pivot_root, {BAD, BAD}},
	{"process_madvise", SYS_process_madvise, {-1, BAD, 0, 0, 0}},
	{"process_vm_readv", SYS_process_vm_readv, {1, BAD, 1, BAD, 1, 0}},
	{"process_vm_writev", SYS_process_vm_writev, {1, BAD, 1, BAD, 1, 0}},
	{"ptrace", SYS_ptrace, {99, 1, 0, 0}},
	{"quotactl", SYS_quotactl, {-1, BAD, 0, BAD}},
	{"reboot", SYS_reboot, {1, 1, 1, BAD}}, /* wrong magic numbers */
	{"request_key", SYS_request_key, {BAD, BAD, 0, 0}},
	{"setdomainname", SYS_setdomainname, {BAD, 8}},
	{"sethostname", SYS_sethostname, {BAD, 8}},
	{"setns", SYS_setns, {-1, 0}},
	{"settimeofday", SYS_settimeofday, {BAD, 0}},
	{"swapoff", SYS_swapoff, {BAD}},
	{"swapon", SYS_swapon, {BAD, 0}},
	{"syslog", SYS_syslog, {99, 0, 0}},
	{"umount2", SYS_umount2, {BAD, 0}},
	{"userfaultfd", SYS_userfaultfd, {-1}},
#ifdef __x86_64__
	{"_sysctl", SYS__sysctl, {BAD}},
	{"create_module", SYS_create_module, {BAD, 0}},
	{"ioperm", SYS_ioperm, {-1, 1, 1}},
	{"iopl", SYS_iopl, {99}},
	{"kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, 0, 99}},
	{"modify_ldt", SYS_modify_ldt, {99, 0, 0}},
	{"uselib", SYS_uselib, {BAD}},
	{"ustat", SYS_ustat, {-1, BAD}},
#endif
};

static const struct { const char *name; unsigned long flag; } flags[] = {
	{"NEWNS", CLONE_NEWNS}, {"NEWCGROUP", CLONE_NEWCGROUP}, {"NEWUTS", CLONE_NEWUTS}, {"NEWIPC", CLONE_NEWIPC},
	{"NEWUSER", CLONE_NEWUSER}, {"NEWPID", CLONE_NEWPID}, {"NEWNET", CLONE_NEWNET}, {"NEWTIME", CLONE_NEWTIME},
	{"NONE", 0},
};

static int verdict(long result)
{
	if (result < 0)
		printf("REFUSED %d\n", errno);
	else
		puts("ESCAPED");
	return 0;
}

static void *idle(void *unused)
{
	return unused;
}

static long born(long pid)
{
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, __WALL);
	return pid;
}

static long make(const char *how, unsigned long flag)
{
	if (!strcmp(how, "unshare"))
		return unshare((int)flag);
	if (!strcmp(how, "clone"))
		return born(syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0));
	struct clone_args arguments = {.flags = flag, .exit_signal = SIGCHLD};
	return born(syscall(SYS_clone3, &arguments, sizeof arguments));
}

/* The result counts only if the bit is really on the file. */
static long set_uid(const char *how, const char *path)
{
	const mode_t mode = 04755;
	struct stat status;
	long result = -1;
	umask(0);
	if (!strcmp(how, "open")) {
		result = open(path, O_CREAT | O_EXCL | O_WRONLY, mode);
	} else if (!strcmp(how, "openat2")) {
		struct open_how with = {.flags = O_CREAT | O_EXCL | O_WRONLY, .mode = mode};
		result = syscall(SYS_openat2, AT_FDCWD, path, &with, sizeof with);
	} else if (!strcmp(how, "mknod")) {
		result = mknod(path, S_IFREG | mode, 0);
	} else if (!strcmp(how, "unnamed")) {
		int fd = open(".", O_TMPFILE | O_WRONLY, mode);
		return fd < 0 || fstat(fd, &status) < 0 ? -1 : status.st_mode & S_ISUID ? 0 : (errno = EPERM, -1);
#ifdef __x86_64__
	} else if (!strcmp(how, "old_open")) {
		result = syscall(SYS_open, path, O_CREAT | O_EXCL | O_WRONLY, mode);
	} else if (!strcmp(how, "old_creat")) {
		result = syscall(SYS_creat, path, mode);
#endif
	} else if (!strcmp(how, "mkdir")) {
		/* mkdir(2) drops set-ID bits by itself, so chmod the directory */
		result = mkdir(path, 0755) < 0 ? -1 : chmod(path, 02755);
	} else {
		int fd = open(path, O_CREAT | O_WRONLY, 0755);
		if (fd < 0)
			return 2;
		if (!strcmp(how, "chmod"))
			result = chmod(path, mode);
		else if (!strcmp(how, "fchmod"))
			result = fchmod(fd, mode);
		else if (!strcmp(how, "fchmodat"))
			result = fchmodat(AT_FDCWD, path, mode, 0);
		else if (!strcmp(how, "fchmodat2"))
			result = syscall(SYS_fchmodat2, AT_FDCWD, path, mode, 0);
	}
	int error = errno;
	if (result >= 0 && (stat(path, &status) < 0 || !(status.st_mode & (S_ISUID | S_ISGID)))) {
		errno = EPERM;
		return -1;
	}
	errno = error;
	return result;
}

static int table(const char *name)
{
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name)) {
			const long *a = calls[i].arguments;
			return verdict(syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]));
		}
	return 2;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
			puts(calls[i].name);
		return 0;
	}
	puts("TRIED");
	fflush(stdout);
	if (argc == 2 && !strcmp(argv[1], "thread")) {
		pthread_t thread;
		errno = pthread_create(&thread, NULL, idle, NULL);
		return verdict(errno ? -1 : pthread_join(thread, NULL));
	}
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "call"))
		return table(argv[2]);
	if (!strcmp(argv[1], "number"))
		return verdict(syscall(atol(argv[2]), 0, 0, 0, 0, 0, 0));
	if (!strcmp(argv[1], "ioctl") && argc == 4) {
		char byte = 'x';
		return verdict(syscall(SYS_ioctl, atol(argv[2]), strtoul(argv[3], NULL, 0), &byte));
	}
	if (!strcmp(argv[1], "socket") && argc == 5)
		return verdict(socket(atoi(argv[2]), atoi(argv[3]), atoi(argv[4])));
	if (strstr("clone3 unshare", argv[1]))
		for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
			if (!strcmp(flags[i].name, argv[2]))
				return verdict(make(argv[1], flags[i].flag));
	return verdict(set_uid(argv[1], argv[2]));
}
