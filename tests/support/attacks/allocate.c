/*
 * Takes memory as fast as it can be had and never gives it back: allocate WAY PROCESSES THREADS [MEGABYTES]
 *   memset     small pages, by touching them
 *   populate   by MAP_POPULATE, one system call for many pages
 *   advise     by MADV_POPULATE_WRITE
 *   huge       huge pages, one touch each
 *   sealed     populate, then mprotect(2) to read-only: no data to RLIMIT_DATA any more
 *   stack      MAP_GROWSDOWN: a stack, no data to RLIMIT_DATA
 *   zero       the page of zeros, read only: no memory but page tables
 *   file       files in /tmp
 *   idle       nothing at all: what the processes alone cost
 * All start at once, when all are there. Each thread ends at its share of MEGABYTES, if these are given; when all have, prints
 * ESCAPED.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { HUGE = 2 << 20, CHUNK = 16 << 20, PAGE = 4096 };

static const char *way;
static size_t most = SIZE_MAX;

static int is(const char *name)
{
	return !strcmp(way, name);
}

static char *reserve(size_t size, int flags)
{
	char *memory = mmap(NULL, size, is("zero") ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

static int take_huge(void)
{
	char *memory = reserve(CHUNK + HUGE, 0);
	if (!memory)
		return -1;
	memory = (char *)(((size_t)memory + HUGE - 1) & ~(size_t)(HUGE - 1));
	madvise(memory, CHUNK, MADV_HUGEPAGE);
	for (size_t at = 0; at < CHUNK; at += HUGE)
		memory[at] = 1;
	return 0;
}

static int take_file(int fd)
{
	static char block[1 << 20];
	for (size_t done = 0; done < CHUNK; done += sizeof block)
		if (write(fd, block, sizeof block) < 0)
			return -1;
	return 0;
}

static int take(int fd)
{
	if (is("huge"))
		return take_huge();
	if (is("file"))
		return take_file(fd);
	char *memory = reserve(CHUNK, is("populate") || is("sealed") ? MAP_POPULATE : is("stack") ? MAP_GROWSDOWN : 0);
	if (!memory)
		return -1;
	if (is("advise"))
		return madvise(memory, CHUNK, MADV_POPULATE_WRITE);
	if (is("sealed"))
		return mprotect(memory, CHUNK, PROT_READ);
	for (size_t at = 0; at < CHUNK; at += PAGE)
		if (is("zero"))
			(void)*(volatile char *)(memory + at);
		else if (is("memset") || is("stack"))
			memory[at] = 1;
	return 0;
}

static void *greedy(void *argument)
{
	char path[64];
	(void)argument;
	snprintf(path, sizeof path, "/tmp/%d", getpid());
	int fd = is("file") ? open(path, O_CREAT | O_WRONLY | O_APPEND, 0600) : -1;
	for (size_t taken = 0; !is("idle") && taken < most; taken += CHUNK)
		if (take(fd) < 0)
			pause();
	return NULL;
}

static void work(long threads)
{
	pthread_t thread[64];
	for (long i = 1; i < threads; i++)
		pthread_create(&thread[i], NULL, greedy, NULL);
	greedy(NULL);
	for (long i = 1; i < threads; i++)
		pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
	int gate[2];
	char byte;
	if (argc < 4 || pipe(gate) < 0)
		return 2;
	way = argv[1];
	long processes = atol(argv[2]), threads = atol(argv[3]), children = 0;
	if (threads > 64)
		return 2;
	if (argc > 4)
		most = (size_t)atol(argv[4]) * (1 << 20) / (size_t)(processes * threads);
	pid_t pid = 1;
	while (children < processes - 1 && (pid = fork()) > 0)
		children++;
	if (pid == 0) {
		close(gate[1]);
		if (read(gate[0], &byte, 1) < 0)
			return 2;
		work(threads);
		_exit(0);
	}
	printf("TRIED\nmade %ld\n", children + 1);
	fflush(stdout);
	close(gate[1]);
	work(threads);
	while (wait(NULL) > 0)
		;
	sleep(is("idle"));
	puts("ESCAPED");
	return 0;
}
