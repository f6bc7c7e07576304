/*
 * The system call filter: an allowlist, compiled once for each set of options into a balanced tree of ranges, so that
 * installing it is cheap and a decision takes a handful of comparisons. Numbers come from the kernel's headers.
 *
 * What is not in the list gets EPERM; what is newer than the list gets ENOSYS, as from an older kernel, so that programs
 * fall back; a foreign entry (i386, x32) dies. Arguments are looked at by few calls, for the kernel remembers decisions
 * only where no argument is read (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <fcntl.h>

#if defined __x86_64__
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call filter knows x86-64 and aarch64"
#endif

/* Newer than some headers, and than what musl knows; from 424 on the numbers are the same on every machine. */
#define SYS_futex_waitv_ 449
#define SYS_set_mempolicy_home_node_ 450
#define SYS_cachestat_ 451
#define SYS_fchmodat2_ 452
#define SYS_map_shadow_stack_ 453
#define SYS_futex_wake_ 454
#define SYS_futex_wait_ 455
#define SYS_futex_requeue_ 456
#define SYS_mseal_ 462

enum { LAST_KNOWN = 462, MAX_NUMBER = 512 }; /* 462: mseal, Linux 6.10 */

enum action {
	DENY,      /* EPERM */
	UNKNOWN,   /* ENOSYS */
	ALLOW,
	CLONE,     /* no namespace flags */
	SOCKET,    /* by family and type */
	SOCKETPAIR,
	IOCTL,     /* not TIOCSTI, TIOCLINUX, TIOCSETD */
	PERSONALITY,
	MODE_1, MODE_2,          /* a file mode in that argument: no set-ID bits */
	OPEN_MODE_2, OPEN_MODE_3, /* the same, where the flags create a file */
	SOCKOPT,   /* not SO_SNDBUF, SO_RCVBUF */
	MAPPING,   /* no shared anonymous memory where memory is sampled */
	FCNTL,     /* no leases; larger pipes and signals of one's choice by option */
	NO_OP,     /* succeeds, does nothing */
	TIMES,     /* of an open file, to the present */
	TERMINAL,  /* an ioctl that terminals, pipes and sockets know */
	UNSUPPORTED, /* EOPNOTSUPP, as from a file system that has no such thing: ls(1) and cp(1) say nothing of it */
	TARGET_0, TARGET_1,      /* a process id in that argument: no process that is not the run's own */
	ACTIONS,
};

static const short ALLOWED[] = {
	/* files, by descriptor and name */
	SYS_read, SYS_write, SYS_close, SYS_fstat, SYS_lseek, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_preadv,
	SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_dup, SYS_dup3, SYS_flock, SYS_fsync, SYS_fdatasync,
	SYS_truncate, SYS_ftruncate, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_fallocate, SYS_fadvise64, SYS_readahead,
	SYS_sync_file_range, SYS_sendfile, SYS_splice, SYS_tee, SYS_copy_file_range,
	SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64,
	SYS_unlinkat, SYS_symlinkat, SYS_linkat, SYS_renameat2, SYS_utimensat, SYS_fchownat, SYS_fchown, SYS_umask,
	SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_setxattr,
	SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, SYS_close_range, SYS_pipe2,
	SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_cachestat_,
	/* waiting */
	SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2,
	SYS_signalfd4, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
	/* memory */
	SYS_munmap, SYS_mprotect, SYS_pkey_mprotect, SYS_pkey_alloc, SYS_pkey_free, SYS_mremap, SYS_madvise,
	SYS_msync, SYS_mincore, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_brk, SYS_membarrier,
	SYS_mbind, SYS_set_mempolicy, SYS_get_mempolicy, SYS_set_mempolicy_home_node_, SYS_remap_file_pages,
	SYS_map_shadow_stack_, SYS_mseal_,
	/* processes and threads */
	SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_getpid, SYS_getppid, SYS_gettid,
	SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list,
	SYS_futex, SYS_futex_waitv_, SYS_futex_wake_, SYS_futex_wait_, SYS_futex_requeue_, SYS_rseq, SYS_prctl, SYS_kill,
	SYS_tkill, SYS_tgkill, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_getcpu, SYS_sched_yield,
	SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_getattr, SYS_sched_get_priority_max,
	SYS_sched_get_priority_min, SYS_sched_rr_get_interval, SYS_getpriority, SYS_ioprio_get, SYS_getrlimit,
	SYS_setrlimit, SYS_getrusage, SYS_times,
	/* identity: nothing can be gained without capabilities */
	SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_setuid,
	SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups,
	SYS_capget, SYS_capset,
	/* signals and time */
	SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo,
	SYS_rt_tgsigqueueinfo, SYS_rt_sigsuspend, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall,
	SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getitimer,
	SYS_setitimer, SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete,
	/* sockets that are there already; socket and socketpair decide which can be made */
	SYS_listen, SYS_accept, SYS_accept4, SYS_getsockname, SYS_getpeername, SYS_sendto, SYS_recvfrom,
	SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_getsockopt, SYS_shutdown,
	/* the system */
	SYS_uname, SYS_sysinfo, SYS_getrandom, SYS_landlock_create_ruleset, SYS_landlock_add_rule,
	SYS_landlock_restrict_self, SYS_seccomp,
#ifdef __x86_64__
	SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_rename, SYS_rmdir, SYS_unlink, SYS_link, SYS_symlink, SYS_chown,
	SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat, SYS_getdents, SYS_dup2, SYS_pipe, SYS_poll, SYS_select,
	SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_signalfd, SYS_inotify_init, SYS_fork, SYS_vfork, SYS_getpgrp,
	SYS_alarm, SYS_pause, SYS_time, SYS_arch_prctl, SYS_renameat, SYS_epoll_ctl_old, SYS_epoll_wait_old,
#else
	SYS_renameat,
#endif
};
static const short IPC[] = {
	SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget,
	SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive,
	SYS_mq_notify, SYS_mq_getsetattr,
};
/* ENOSYS rather than EPERM: programs that meet it use the older call, or do without. */
static const short MISSING[] = {
	SYS_clone3,  /* its flags lie in memory: a filter can't see a namespace flag in them */
	SYS_openat2, /* its mode too */
	SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_fchmodat2_,
	/* fs.aio-nr is one number for the whole host: one run could take it all */
	SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel, SYS_io_getevents, SYS_io_pgetevents,
};
/* Writing out every file system of the host is no business of a command's: it succeeds and does nothing. */
static const short NOTHING[] = {SYS_sync, SYS_syncfs};

static unsigned char action_of(unsigned options, short number)
{
	switch (number) {
	case SYS_clone: return CLONE;
	case SYS_socket: return SOCKET;
	case SYS_socketpair: return SOCKETPAIR;
	case SYS_ioctl: return options & FILTER_PIDS ? IOCTL : TERMINAL;
	case SYS_personality: return PERSONALITY;
	case SYS_bind: return options & (FILTER_PIDS | FILTER_INET) ? ALLOW : DENY;
	case SYS_connect: return options & (FILTER_CONNECT | FILTER_INET) ? ALLOW : DENY;
	case SYS_prlimit64: case SYS_sched_setaffinity: case SYS_sched_setparam: case SYS_sched_setscheduler:
	case SYS_sched_setattr: return TARGET_0;
	case SYS_setpriority: case SYS_ioprio_set: return TARGET_1;
	case SYS_fcntl: return FCNTL;
	case SYS_mmap: return options & FILTER_BUFFERS ? ALLOW : MAPPING;
	case SYS_vmsplice: return options & FILTER_BUFFERS ? ALLOW : DENY;
	case SYS_timer_create: return options & FILTER_TIMERS ? ALLOW : UNKNOWN;
	case SYS_setsockopt: return options & FILTER_BUFFERS ? ALLOW : SOCKOPT;
	case SYS_memfd_create: return options & FILTER_MEMFD ? ALLOW : UNKNOWN;
#define GUARDED(guarded) (options & FILTER_SETID ? ALLOW : (guarded))
	case SYS_fchmod: return GUARDED(MODE_1);
	case SYS_fchmodat: return GUARDED(MODE_2);
	case SYS_mkdirat: return GUARDED(MODE_2);
	case SYS_mknodat: return GUARDED(MODE_2);
	case SYS_openat: return options & FILTER_PIDS ? GUARDED(OPEN_MODE_3) : OPEN_MODE_3;
#ifdef __x86_64__
	case SYS_chmod: return GUARDED(MODE_1);
	case SYS_mkdir: return GUARDED(MODE_1);
	case SYS_mknod: return GUARDED(MODE_1);
	case SYS_creat: return GUARDED(MODE_1);
	case SYS_open: return options & FILTER_PIDS ? GUARDED(OPEN_MODE_2) : OPEN_MODE_2;
#endif
#undef GUARDED
	default: return DENY;
	}
}

/* Landlock has no say in them: who has its caller's user could change the modes of all files of that user's. */
static const short METADATA[] = {
	SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr,
	SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
#ifdef __x86_64__
	SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat,
#endif
};

/* Without a view they would tell the names of what lies in directories that can't be opened; and instances are counted per user. */
static const short WATCHES[] = {
	SYS_inotify_init1, SYS_inotify_add_watch,
#ifdef __x86_64__
	SYS_inotify_init,
#endif
};
/* What tells of a file that can't be opened more than stat(2) does. */
static const short BY_NAME[] = {SYS_getxattr, SYS_lgetxattr, SYS_listxattr, SYS_llistxattr};

static void fill(unsigned char *table, const short *numbers, size_t count, unsigned char action)
{
	for (size_t i = 0; i < count; i++)
		if (numbers[i] >= 0 && numbers[i] < MAX_NUMBER)
			table[numbers[i]] = action;
}

#define FILL(table, list, action) fill(table, list, sizeof(list) / sizeof *(list), action)

static void decide(unsigned options, unsigned char *table)
{
	for (short number = 0; number < MAX_NUMBER; number++)
		table[number] = number > LAST_KNOWN ? UNKNOWN : action_of(options, number);
	FILL(table, ALLOWED, ALLOW);
	if (options & FILTER_IPC)
		FILL(table, IPC, ALLOW);
	if (!(options & FILTER_PIDS)) {
		FILL(table, WATCHES, DENY);
		FILL(table, BY_NAME, UNSUPPORTED);
	}
	if (!(options & FILTER_METADATA)) {
		FILL(table, METADATA, DENY);
		table[SYS_utimensat] = TIMES;
	}
	FILL(table, MISSING, UNKNOWN);
	FILL(table, NOTHING, NO_OP);
}

/* --- the tree --- */

enum { MAX_CODE = 1024 };

struct program {
	struct sock_filter code[MAX_CODE];
	unsigned short size;
	unsigned options;
};

struct range { unsigned start; unsigned char action; }; /* up to the next range's start */

static void emit(struct program *program, struct sock_filter instruction)
{
	if (program->size < MAX_CODE)
		program->code[program->size++] = instruction;
}

#define STATEMENT(code, k) emit(program, (struct sock_filter)BPF_STMT(code, k))
#define JUMP(code, k, yes, no) emit(program, (struct sock_filter)BPF_JUMP(code, k, yes, no))
#define LOAD(field) STATEMENT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(field))
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n)) /* the low half: both machines are little-endian */
#define REFUSE(error) STATEMENT(BPF_RET, SECCOMP_RET_ERRNO | (error))
#define PERMIT STATEMENT(BPF_RET, SECCOMP_RET_ALLOW)

static void refuse_bits(struct program *program, unsigned argument, unsigned bits)
{
	LOAD(ARGUMENT(argument));
	JUMP(BPF_JMP | BPF_JSET, bits, 0, 1);
	REFUSE(EPERM);
	PERMIT;
}

/* What lies in a socket's buffers is nobody's memory to a sampler: there they keep their default size (socket(7)). */
static void check_sockopt(struct program *program)
{
	LOAD(ARGUMENT(1));
	JUMP(BPF_JMP | BPF_JEQ, SOL_SOCKET, 1, 0);
	PERMIT;
	LOAD(ARGUMENT(2));
	JUMP(BPF_JMP | BPF_JEQ, SO_SNDBUF, 4, 0);
	JUMP(BPF_JMP | BPF_JEQ, SO_RCVBUF, 3, 0);
	JUMP(BPF_JMP | BPF_JEQ, SO_SNDBUFFORCE, 2, 0);
	JUMP(BPF_JMP | BPF_JEQ, SO_RCVBUFFORCE, 1, 0);
	PERMIT;
	REFUSE(EPERM);
}

/*
 * A lease lets who may only read a file hold up everybody who opens it to write; a pipe can hold a megabyte that nobody
 * maps; SIGCONT by way of a descriptor would undo the stop by which CPU time is rationed (fcntl(2)).
 */
static void check_fcntl(struct program *program)
{
	const struct { unsigned command, unless; } refused[] = {
		{F_SETLEASE, 0}, {F_NOTIFY, 0}, {F_SETPIPE_SZ, FILTER_BUFFERS}, {F_SETSIG, FILTER_TIMERS},
	};
	LOAD(ARGUMENT(1));
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		if (!(program->options & refused[i].unless)) {
			JUMP(BPF_JMP | BPF_JEQ, refused[i].command, 0, 1);
			REFUSE(EPERM);
		}
	PERMIT;
}

/* Its pages stay when they are not mapped any more: nobody could see by looking what it holds. */
static void check_mapping(struct program *program)
{
	LOAD(ARGUMENT(3));
	STATEMENT(BPF_ALU | BPF_AND, MAP_SHARED | MAP_ANONYMOUS);
	JUMP(BPF_JMP | BPF_JEQ, MAP_SHARED | MAP_ANONYMOUS, 0, 1);
	REFUSE(EPERM);
	PERMIT;
}

/* No namespaces. A process that shares its parent's memory and outlives it could pass it on faster than it is looked at. */
static void check_clone(struct program *program)
{
	const unsigned spaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
	if (program->options & FILTER_BUFFERS) {
		refuse_bits(program, 0, spaces);
		return;
	}
	LOAD(ARGUMENT(0));
	JUMP(BPF_JMP | BPF_JSET, spaces, 3, 0);
	JUMP(BPF_JMP | BPF_JSET, CLONE_VM, 0, 1);
	JUMP(BPF_JMP | BPF_JSET, CLONE_THREAD | CLONE_VFORK, 0, 1);
	PERMIT;
	REFUSE(EPERM);
}

/*
 * Not the reaper, whose limits would end the run unseen. In a pid namespace that is 1, and nobody else's number is known;
 * without one 0, the caller itself, is all that may be named, and no user either: that would be all processes of that user.
 */
static void check_target(struct program *program, unsigned argument)
{
	if (program->options & FILTER_PIDS) {
		LOAD(ARGUMENT(argument));
		JUMP(BPF_JMP | BPF_JEQ, 1, 0, 1);
		REFUSE(EPERM);
		PERMIT;
		return;
	}
	if (argument) { /* setpriority(2), ioprio_set(2): 2 and 3 are PRIO_USER and IOPRIO_WHO_USER */
		LOAD(ARGUMENT(0));
		JUMP(BPF_JMP | BPF_JGE, 2, 2, 0);
	}
	LOAD(ARGUMENT(argument));
	JUMP(BPF_JMP | BPF_JEQ, 0, 1, 0);
	REFUSE(EPERM);
	PERMIT;
}

/* What touch(1) does with what it has opened; a time of one's choice, or a file by its name, could be anybody's. */
static void check_times(struct program *program)
{
	enum { HIGH_HALF = 4 };
	for (unsigned argument = 1; argument <= 2; argument++)
		for (unsigned half = 0; half <= HIGH_HALF; half += HIGH_HALF) {
			LOAD(ARGUMENT(argument) + half);
			JUMP(BPF_JMP | BPF_JEQ, 0, 1, 0);
			REFUSE(EPERM);
		}
	PERMIT;
}

/*
 * Without a view Landlock decides by what a file is opened for, and the access mode 3 is for nothing: whoever may read and write
 * the file gets a descriptor by which it can't do that, but can do all else (open(2), "O_ACCMODE").
 */
static void check_open(struct program *program, unsigned flags)
{
	LOAD(ARGUMENT(flags));
	if (!(program->options & FILTER_PIDS)) {
		STATEMENT(BPF_ALU | BPF_AND, O_ACCMODE);
		JUMP(BPF_JMP | BPF_JEQ, O_ACCMODE, 0, 1);
		REFUSE(EACCES);
		if (program->options & FILTER_SETID) {
			PERMIT;
			return;
		}
		LOAD(ARGUMENT(flags));
	}
	JUMP(BPF_JMP | BPF_JSET, O_CREAT | (O_TMPFILE & ~O_DIRECTORY), 1, 0);
	PERMIT;
	refuse_bits(program, flags + 1, S_ISUID | S_ISGID);
}

/* connect(2) is refused where a host's socket may lie in the view; a datagram socket needs no connect to reach one. */
static void check_unix(struct program *program)
{
	if (!(program->options & FILTER_UNIX))
		REFUSE(EACCES);
	if (program->options & FILTER_CONNECT)
		PERMIT;
	LOAD(ARGUMENT(1));
	STATEMENT(BPF_ALU | BPF_AND, 0xf); /* without SOCK_CLOEXEC and SOCK_NONBLOCK */
	JUMP(BPF_JMP | BPF_JEQ, SOCK_STREAM, 2, 0);
	JUMP(BPF_JMP | BPF_JEQ, SOCK_SEQPACKET, 1, 0);
	REFUSE(EACCES);
	PERMIT;
}

static void check_socket(struct program *program, bool pair)
{
	unsigned options = program->options;
	LOAD(ARGUMENT(0));
	if (options & FILTER_INET && !pair) {
		JUMP(BPF_JMP | BPF_JEQ, AF_INET, 1, 0);
		JUMP(BPF_JMP | BPF_JEQ, AF_INET6, 0, 1);
		PERMIT;
	}
	JUMP(BPF_JMP | BPF_JEQ, AF_UNIX, 1, 0);
	REFUSE(EAFNOSUPPORT);
	if (pair) /* both ends are the command's own, whatever the option says of named ones */
		program->options |= FILTER_UNIX;
	check_unix(program);
	program->options = options;
}

static void check_ioctl(struct program *program)
{
	enum { TIOCSTI_ = 0x5412, TIOCLINUX_ = 0x541C, TIOCSETD_ = 0x5423 };
	LOAD(ARGUMENT(1)); /* the kernel looks at 32 bits, so do we: CVE-2019-10063 */
	JUMP(BPF_JMP | BPF_JEQ, TIOCSTI_, 2, 0);
	JUMP(BPF_JMP | BPF_JEQ, TIOCLINUX_, 1, 0);
	JUMP(BPF_JMP | BPF_JEQ, TIOCSETD_, 0, 1);
	REFUSE(EPERM);
	PERMIT;
}

/* Those of file systems change what is only to be read, clone and compare, and make directories: Landlock knows none of them. */
static void check_terminal(struct program *program)
{
	const unsigned others[] = {0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D}; /* TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 */
	LOAD(ARGUMENT(1));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		JUMP(BPF_JMP | BPF_JEQ, others[i], 0, 1);
		PERMIT;
	}
	STATEMENT(BPF_ALU | BPF_AND, 0xffffff00);
	JUMP(BPF_JMP | BPF_JEQ, 0x5400, 1, 0); /* asm-generic/ioctls.h */
	REFUSE(ENOTTY);
	check_ioctl(program);
}

static void check_personality(struct program *program)
{
	LOAD(ARGUMENT(0));
	JUMP(BPF_JMP | BPF_JEQ, 0, 1, 0);
	JUMP(BPF_JMP | BPF_JEQ, 0xffffffff, 0, 1); /* asks only */
	PERMIT;
	REFUSE(EPERM);
}

static void leaf(struct program *program, unsigned char action)
{
	switch (action) {
	case ALLOW: PERMIT; break;
	case UNKNOWN: REFUSE(ENOSYS); break;
	case CLONE: check_clone(program); break;
	case MAPPING: check_mapping(program); break;
	case SOCKET: check_socket(program, false); break;
	case SOCKETPAIR: check_socket(program, true); break;
	case IOCTL: check_ioctl(program); break;
	case PERSONALITY: check_personality(program); break;
	case MODE_1: refuse_bits(program, 1, S_ISUID | S_ISGID); break;
	case MODE_2: refuse_bits(program, 2, S_ISUID | S_ISGID); break;
	case SOCKOPT: check_sockopt(program); break;
	case FCNTL: check_fcntl(program); break;
	case NO_OP: REFUSE(0); break;
	case TIMES: check_times(program); break;
	case TERMINAL: check_terminal(program); break;
	case UNSUPPORTED: REFUSE(EOPNOTSUPP); break;
	case TARGET_0: check_target(program, 0); break;
	case TARGET_1: check_target(program, 1); break;
	case OPEN_MODE_2: check_open(program, 1); break;
	case OPEN_MODE_3: check_open(program, 2); break;
	default: REFUSE(EPERM);
	}
}

/*
 * The conditional jump reaches 255 instructions; where the left half is longer, a long jump is put between. All jumps are
 * relative and forward, so what was emitted can be moved.
 */
static void tree(struct program *program, const struct range *ranges, size_t count)
{
	enum { REACH = 255 };
	if (count == 1) {
		leaf(program, ranges[0].action);
		return;
	}
	size_t half = count / 2;
	unsigned short jump = program->size;
	JUMP(BPF_JMP | BPF_JGE, ranges[half].start, 0, 0);
	tree(program, ranges, half);
	unsigned left = (unsigned)(program->size - jump - 1);
	if (left <= REACH && jump < MAX_CODE) {
		program->code[jump].jt = (unsigned char)left;
	} else if (program->size < MAX_CODE) {
		memmove(&program->code[jump + 2], &program->code[jump + 1], left * sizeof *program->code);
		program->code[jump].jf = 1;
		program->code[jump + 1] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, left);
		program->size++;
	}
	tree(program, ranges + half, count - half);
}

static void compile(struct program *program)
{
	unsigned char table[MAX_NUMBER];
	struct range ranges[MAX_NUMBER];
	size_t count = 0;
	decide(program->options, table);
	for (unsigned number = 0; number < MAX_NUMBER; number++)
		if (!count || ranges[count - 1].action != table[number])
			ranges[count++] = (struct range){number, table[number]};
	LOAD(offsetof(struct seccomp_data, arch));
	JUMP(BPF_JMP | BPF_JEQ, NATIVE_ARCH, 1, 0);
	STATEMENT(BPF_RET, SECCOMP_RET_KILL_PROCESS);
	LOAD(offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
	JUMP(BPF_JMP | BPF_JSET, 0x40000000, 0, 1); /* x32 */
	STATEMENT(BPF_RET, SECCOMP_RET_KILL_PROCESS);
#endif
	tree(program, ranges, count);
}

static bool is_conditional(const struct sock_filter *instruction)
{
	return BPF_CLASS(instruction->code) == BPF_JMP && BPF_OP(instruction->code) != BPF_JA;
}

/* The last of the same answers that a jump reaches, where it leads to an answer. */
static unsigned share(const struct program *program, unsigned jump, unsigned target)
{
	enum { REACH = 255 };
	const struct sock_filter *answer = &program->code[target];
	unsigned last = jump + 1 + REACH < program->size ? jump + 1 + REACH : program->size - 1U;
	for (; BPF_CLASS(answer->code) == BPF_RET && last > target; last--)
		if (program->code[last].code == answer->code && program->code[last].k == answer->k)
			return last;
	return target;
}

/* What no path leads to any more; all jumps are forward. */
static bool remove_unreached(struct program *program)
{
	bool reached[MAX_CODE + 1] = {true};
	unsigned short place[MAX_CODE + 1], size = 0;
	for (unsigned i = 0; i < program->size; i++) {
		const struct sock_filter *instruction = &program->code[i];
		place[i] = size;
		if (!reached[i])
			continue;
		size++;
		if (is_conditional(instruction))
			reached[i + 1 + instruction->jt] = reached[i + 1 + instruction->jf] = true;
		else if (BPF_CLASS(instruction->code) == BPF_JMP)
			reached[i + 1 + instruction->k] = true;
		else if (BPF_CLASS(instruction->code) != BPF_RET)
			reached[i + 1] = true;
	}
	for (unsigned i = 0; i < program->size; i++) {
		struct sock_filter instruction = program->code[i];
		if (!reached[i])
			continue;
		if (is_conditional(&instruction)) {
			instruction.jt = (unsigned char)(place[i + 1 + instruction.jt] - place[i] - 1);
			instruction.jf = (unsigned char)(place[i + 1 + instruction.jf] - place[i] - 1);
		} else if (BPF_CLASS(instruction.code) == BPF_JMP) {
			instruction.k = place[i + 1 + instruction.k] - place[i] - 1U;
		}
		program->code[place[i]] = instruction;
	}
	bool less = size < program->size;
	program->size = size;
	return less;
}

/* The kernel translates and compiles the filter anew for each run, instruction by instruction: so equal answers stand there once. */
static void share_answers(struct program *program)
{
	do
		for (unsigned i = 0; i < program->size; i++) {
			struct sock_filter *instruction = &program->code[i];
			if (!is_conditional(instruction))
				continue;
			instruction->jt = (unsigned char)(share(program, i, i + 1 + instruction->jt) - i - 1);
			instruction->jf = (unsigned char)(share(program, i, i + 1 + instruction->jf) - i - 1);
		}
	while (remove_unreached(program));
}

static struct program *programs[FILTER_VARIANTS];

int compile_filter(unsigned options)
{
	struct program **place = &programs[options % FILTER_VARIANTS];
	if (*place)
		return (int)(options % FILTER_VARIANTS);
	struct program *program = calloc(1, sizeof *program);
	if (!program)
		return -1;
	program->options = options;
	compile(program);
	if (program->size >= MAX_CODE) {
		free(program);
		errno = E2BIG;
		return -1;
	}
	share_answers(program);
	*place = program;
	return (int)(options % FILTER_VARIANTS);
}

void restrict_syscalls(const struct plan *plan, int filter, struct record *record)
{
	if (!plan->seccomp)
		return;
	struct sock_fprog program = {.len = programs[filter]->size, .filter = programs[filter]->code};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		die(record, "seccomp", "");
}

bool parse_filter_option(const char *word, size_t size, unsigned *options)
{
	static const struct { const char *name; unsigned option; } names[] = {
		{"unix", FILTER_UNIX}, {"inet", FILTER_INET}, {"connect", FILTER_CONNECT}, {"memfd", FILTER_MEMFD},
		{"setid", FILTER_SETID}, {"ipc", FILTER_IPC}, {"buffers", FILTER_BUFFERS}, {"timers", FILTER_TIMERS},
		{"pids", FILTER_PIDS}, {"metadata", FILTER_METADATA},
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == size && !memcmp(names[i].name, word, size)) {
			*options |= names[i].option;
			return true;
		}
	return false;
}
