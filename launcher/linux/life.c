/*
 * Whether the thread that made a process has died. Its signal (PR_SET_PDEATHSIG) comes to who has asked for it before; who asks must
 * learn whether that was in time. Nothing that ends with our process tells: of its threads the one that made us may have gone, and left
 * us to nobody, while another has still to close its files; and who was cloned a moment ago has copies of all of them.
 *
 * So each thread that makes processes holds a lock, in memory that these share, which the kernel marks when its holder dies without
 * having let it go (get_robust_list(2), Documentation/locking/robust-futex-ABI.rst). It does so where a thread gives up its memory,
 * before its children are told that it is dead (kernel/exit.c, do_exit(): exit_mm() and then exit_notify()). So who has asked
 * for the signal and then finds no mark will get the signal.
 */
#define _GNU_SOURCE
#include "../launcher.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_LIVES = 512 }; /* more than there are ever threads that make processes (linux/cgroup.c) */

struct life {
	struct robust_list_head head;
	struct robust_list entry; /* the only one of the list */
	uint32_t lock;            /* the holder's thread id, or 0; and the kernel's mark */
};

static struct life *lives; /* the first is that of the launcher's first thread */
static _Thread_local struct life *own;

static struct life *take_lock(uint32_t thread)
{
	for (struct life *life = lives; life < lives + MAX_LIVES; life++) {
		uint32_t nobody = 0;
		if (__atomic_compare_exchange_n(&life->lock, &nobody, thread, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return life;
	}
	errno = EAGAIN;
	return NULL;
}

/* Of the calling thread, which has not begun another. Its C library's list of robust mutexes, which we have none of, is ours then. */
int begin_life(void)
{
	if (!lives) {
		void *place = mmap(NULL, MAX_LIVES * sizeof *lives, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (place == MAP_FAILED)
			return -1;
		lives = place;
	}
	own = take_lock((uint32_t)syscall(SYS_gettid));
	if (!own)
		return -1;
	own->entry.next = &own->head.list;
	own->head.list.next = &own->entry;
	own->head.futex_offset = (long)offsetof(struct life, lock) - (long)offsetof(struct life, entry);
	return (int)syscall(SYS_set_robust_list, &own->head, sizeof own->head);
}

/* The calling thread goes, and nothing that it made is to end with it. The kernel marks no lock that is not the dying thread's. */
void end_life(void)
{
	if (own)
		__atomic_store_n(&own->lock, 0, __ATOMIC_RELEASE);
	own = NULL;
}

/*
 * In a process that was cloned, after it has asked for its parent's death signal: whether that will not come. The parent is the thread
 * that made it, which has begun a life, or, of who was adopted when that one had gone, the launcher's first.
 */
bool has_parent_died(bool adopted)
{
	const struct life *parent = adopted ? lives : own;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* what was asked for is seen before we look */
	return __atomic_load_n(&parent->lock, __ATOMIC_SEQ_CST) & FUTEX_OWNER_DIED;
}

/* In a process that was cloned to be looked at; until it is killed. */
noreturn void await_parents_death(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!has_parent_died(false))
		pause();
	_exit(125);
}
