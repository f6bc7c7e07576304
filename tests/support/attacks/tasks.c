/*
 * Makes tasks, never more than it is told: tasks KIND COUNT
 *   fork     COUNT children side by side            bomb     every process forks, COUNT forks in all
 *   thread   COUNT threads side by side
 * Prints TRIED, then "made N refused M errno E", and ESCAPED when nothing was refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct { atomic_int tickets, made, refused, error, finished; } *shared;
static int release_pipe[2];

static void *waiter(void *unused)
{
	char byte;
	(void)unused;
	if (read(release_pipe[0], &byte, 1) < 0)
		_exit(1);
	return NULL;
}

static void refused(int error)
{
	atomic_fetch_add(&shared->refused, 1);
	atomic_store(&shared->error, error);
}

static void side_by_side(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			close(release_pipe[1]);
			waiter(NULL);
			_exit(0);
		}
		if (pid < 0)
			refused(errno);
		else
			atomic_fetch_add(&shared->made, 1);
	}
	close(release_pipe[1]);
	while (wait(NULL) > 0)
		;
}

static void threads(int count)
{
	pthread_t *ids = calloc((size_t)count, sizeof *ids);
	int made = 0;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (int i = 0; i < count; i++) {
		int error = pthread_create(&ids[made], &small, waiter, NULL);
		if (error)
			refused(error);
		else
			made++;
	}
	atomic_store(&shared->made, made);
	close(release_pipe[1]);
	for (int i = 0; i < made; i++)
		pthread_join(ids[i], NULL);
	free(ids);
}

/* A ticket for each attempt bounds the bomb; nobody leaves before the tickets are used up. */
static void bomb(int count)
{
	pid_t first = getpid();
	while (atomic_fetch_add(&shared->tickets, 1) < count) {
		pid_t pid = fork();
		if (pid < 0)
			refused(errno);
		else if (pid > 0)
			atomic_fetch_add(&shared->made, 1);
	}
	while (wait(NULL) > 0)
		;
	if (getpid() != first)
		_exit(0);
}

int main(int argc, char **argv)
{
	if (argc != 3 || pipe(release_pipe) < 0)
		return 2;
	int count = atoi(argv[2]);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 2;
	puts("TRIED");
	fflush(stdout);
	if (!strcmp(argv[1], "fork"))
		side_by_side(count);
	else if (!strcmp(argv[1], "thread"))
		threads(count);
	else if (!strcmp(argv[1], "bomb"))
		bomb(count);
	else
		return 2;
	printf("made %d refused %d errno %d\n", shared->made, shared->refused, shared->error);
	if (!shared->refused)
		puts("ESCAPED");
	return 0;
}
