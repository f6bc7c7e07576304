/*
 * Takes memory of one kind, touches it and says so: memory KIND MEGABYTES [hold] [PATH]
 * Prints TRIED, then ESCAPED when all of it has been touched, or REFUSED ERRNO. "hold": stays until it is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEGABYTE = 1 << 20, CHILDREN = 20 };

static void refuse(void)
{
	printf("REFUSED %d\n", errno);
	fflush(stdout);
	exit(0);
}

static void touch(char *memory, size_t size)
{
	for (size_t i = 0; i < size; i += 4096)
		memory[i] = (char)(i >> 12 | 1);
}

static char *mapped(size_t size, int flags, int fd)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (memory == MAP_FAILED)
		refuse();
	return memory;
}

static void fill(int fd, size_t size)
{
	static char block[MEGABYTE];
	memset(block, 'x', sizeof block);
	for (size_t done = 0; done < size; done += sizeof block)
		if (write(fd, block, sizeof block) != (ssize_t)sizeof block)
			refuse();
}

/* Each child touches its part and then waits until the parent lets go. */
static void children(size_t size)
{
	int ready[2], release[2];
	char byte;
	if (pipe(ready) < 0 || pipe(release) < 0)
		refuse();
	for (int i = 0; i < CHILDREN; i++) {
		pid_t pid = fork();
		if (pid < 0)
			refuse();
		if (pid == 0) {
			close(release[1]);
			touch(mapped(size / CHILDREN, MAP_PRIVATE | MAP_ANONYMOUS, -1), size / CHILDREN);
			if (write(ready[1], "r", 1) != 1 || read(release[0], &byte, 1) < 0)
				_exit(1);
			_exit(0);
		}
	}
	close(ready[1]);
	int count = 0;
	while (count < CHILDREN && read(ready[0], &byte, 1) == 1)
		count++;
	if (count < CHILDREN) {
		puts("LOST A CHILD");
		fflush(stdout);
		pause();
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const char *kind = argv[1];
	size_t size = strtoul(argv[2], NULL, 10) * MEGABYTE;
	int hold = argc > 3 && !strcmp(argv[3], "hold");
	puts("TRIED");
	fflush(stdout);
	if (!strcmp(kind, "anonymous")) {
		touch(mapped(size, MAP_PRIVATE | MAP_ANONYMOUS, -1), size);
	} else if (!strcmp(kind, "shared")) {
		touch(mapped(size, MAP_SHARED | MAP_ANONYMOUS, -1), size);
	} else if (!strcmp(kind, "children")) {
		children(size);
	} else if (!strcmp(kind, "memfd")) {
		int fd = memfd_create("memory", 0);
		if (fd < 0)
			refuse();
		fill(fd, size);
	} else if (!strcmp(kind, "file")) {
		int fd = open(argv[4], O_CREAT | O_EXCL | O_RDWR, 0600);
		if (fd < 0)
			refuse();
		unlink(argv[4]);
		fill(fd, size);
	} else if (!strcmp(kind, "sysv")) {
		int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
		if (id < 0)
			refuse();
		char *memory = shmat(id, NULL, 0);
		shmctl(id, IPC_RMID, NULL);
		if (memory == (char *)-1)
			refuse();
		touch(memory, size);
	} else if (!strcmp(kind, "reserve")) {
		mapped(size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	} else {
		return 2;
	}
	puts("ESCAPED");
	fflush(stdout);
	while (hold)
		pause();
	return 0;
}
