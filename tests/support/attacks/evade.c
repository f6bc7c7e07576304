/*
 * Uses more than a limit allows, in a way that whoever only looks from time to time does not see: evade WAY AMOUNT [hold]
 *   shared     AMOUNT MiB of shared anonymous memory that no page table shows any more
 *   tables     AMOUNT MiB of page tables, by reading one byte in each 2 MiB
 *   pages      AMOUNT pipes that each keep sixteen huge pages by one small page of them
 *   leader     AMOUNT MiB taken by a second thread after the first one, whose memory /proc shows, has ended
 *   space      a child that shares its parent's memory and is no thread
 *   reap       AMOUNT seconds of CPU time in children for whom nobody waits
 *   continue   AMOUNT seconds of wall time, with a timer that continues the process when it is stopped
 *   orders     fills the queue of signals, then sends pid 1 a SIGUSR1 that says nothing of its sender
 * Prints TRIED, then ESCAPED when it has it, or REFUSED ERRNO.
 */
#define _GNU_SOURCE
#include "burn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEGABYTE (1L << 20)

static void refuse(void)
{
	printf("REFUSED %d\n", errno);
	fflush(stdout);
	exit(0);
}

static char *reserve(long size, int protection, int flags)
{
	char *memory = mmap(NULL, (size_t)size, protection, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		refuse();
	return memory;
}

static void hide_shared(long amount)
{
	char *memory = reserve(amount * MEGABYTE, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (long i = 0; i < amount; i++) {
		memset(memory + i * MEGABYTE, 1, MEGABYTE);
		madvise(memory + i * MEGABYTE, MEGABYTE, MADV_DONTNEED);
		usleep(2000);
	}
}

static void fill_tables(long amount)
{
	long tables = amount * 256;
	volatile char *memory = reserve(tables * 2 * MEGABYTE, PROT_READ, MAP_PRIVATE);
	madvise((void *)memory, (size_t)(tables * 2 * MEGABYTE), MADV_NOHUGEPAGE);
	for (long i = 0; i < tables; i++) {
		(void)memory[i * 2 * MEGABYTE];
		if (i % 1024 == 0)
			usleep(2000);
	}
}

static void keep_huge_pages(long amount)
{
	for (long i = 0; i < amount; i++) {
		int ends[2];
		if (pipe(ends) < 0)
			refuse();
		for (int page = 0; page < 16; page++) {
			char *memory = reserve(4 * MEGABYTE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
			char *huge = (char *)(((unsigned long)memory + 2 * MEGABYTE - 1) & ~(unsigned long)(2 * MEGABYTE - 1));
			madvise(huge, 2 * MEGABYTE, MADV_HUGEPAGE);
			*huge = 1;
			struct iovec piece = {huge, 4096};
			if (vmsplice(ends[1], &piece, 1, SPLICE_F_NONBLOCK) < 0)
				refuse();
			munmap(memory, 4 * MEGABYTE);
		}
		usleep(5000);
	}
}

static long size_of_leader;

static void *take_memory(void *argument)
{
	(void)argument;
	usleep(50000); /* until the first thread is gone */
	for (long i = 0; i < size_of_leader; i++) {
		memset(reserve(MEGABYTE, PROT_READ | PROT_WRITE, MAP_PRIVATE), 1, MEGABYTE);
		usleep(2000);
	}
	puts("ESCAPED");
	fflush(stdout);
	_exit(0);
}

static void end_the_leader(long amount)
{
	pthread_t thread;
	size_of_leader = amount;
	if (pthread_create(&thread, NULL, take_memory, NULL))
		refuse();
	syscall(SYS_exit, 0);
}

static void share_space(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_VM | SIGCHLD, reserve(1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE) + (1 << 15),
				   NULL, NULL, NULL);
	if (pid < 0)
		refuse();
	if (pid == 0)
		syscall(SYS_exit, 0);
	waitpid(pid, NULL, 0);
}

static void reap_nobody(long amount)
{
	signal(SIGCHLD, SIG_IGN);
	for (long i = 0; i < amount * 5; i++) {
		pid_t pid = fork();
		if (pid < 0)
			refuse();
		if (pid == 0) {
			burn(CLOCK_PROCESS_CPUTIME_ID, 0.2);
			_exit(0);
		}
		while (wait(NULL) > 0 || errno == EINTR)
			;
	}
}

static void on_continue(int number)
{
	(void)number;
}

static void continue_always(long amount)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGCONT};
	struct itimerspec each = {{0, 1000000}, {0, 1000000}};
	timer_t timer;
	signal(SIGCONT, on_continue);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
		timer_settime(timer, 0, &each, NULL);
	else
		printf("REFUSED %d\n", errno);
	burn(CLOCK_MONOTONIC, (double)amount);
}

static void forge_orders(void)
{
	sigset_t all;
	siginfo_t info;
	union sigval value = {.sival_int = 0};
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	while (sigqueue(getpid(), SIGRTMIN + 1, value) == 0)
		;
	memset(&info, 0, sizeof info);
	info.si_code = SI_QUEUE;
	info.si_signo = SIGUSR1;
	syscall(SYS_rt_sigqueueinfo, 1, SIGUSR1, &info);
	usleep(200000); /* long enough for pid 1 to run, should it obey */
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	long amount = atol(argv[2]);
	puts("TRIED");
	fflush(stdout);
	if (!strcmp(argv[1], "shared"))
		hide_shared(amount);
	else if (!strcmp(argv[1], "tables"))
		fill_tables(amount);
	else if (!strcmp(argv[1], "pages"))
		keep_huge_pages(amount);
	else if (!strcmp(argv[1], "leader"))
		end_the_leader(amount);
	else if (!strcmp(argv[1], "space"))
		share_space();
	else if (!strcmp(argv[1], "reap"))
		reap_nobody(amount);
	else if (!strcmp(argv[1], "continue"))
		continue_always(amount);
	else if (!strcmp(argv[1], "orders"))
		forge_orders();
	else
		return 2;
	puts("ESCAPED");
	fflush(stdout);
	while (argc > 3)
		pause();
	return 0;
}
