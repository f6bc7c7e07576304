/*
 * Leaves processes that want to outlive it: daemons COUNT FD ENDING MARK
 * In turn: a double-forked setsid daemon, one that ignores every signal, one that stops itself, a plain orphan.
 * All keep FD and the standard streams open. When all are there "ready\n" goes to FD, and then the ENDING:
 *   exit, kill (itself), hang, spin (CPU), eat (memory), flood (output)
 * MARK is only there to be seen in the list of processes.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stay(int fashion, int ready)
{
	if (fashion == 1 || fashion == 2)
		for (int signal_number = 1; signal_number < NSIG; signal_number++)
			signal(signal_number, SIG_IGN);
	if (write(ready, "r", 1) != 1)
		_exit(1);
	close(ready);
	if (fashion == 2)
		kill(getpid(), SIGSTOP);
	for (;;)
		pause();
}

static void leave_one(int fashion, int ready)
{
	pid_t pid = fork();
	if (pid < 0)
		_exit(3);
	if (pid == 0) {
		if (fashion != 3)
			setsid();
		pid_t second = fork();
		if (second < 0)
			_exit(3);
		if (second > 0)
			_exit(0);
		stay(fashion, ready);
	}
	waitpid(pid, NULL, 0);
}

static void end(const char *how)
{
	static char block[65536];
	if (!strcmp(how, "exit"))
		exit(0);
	if (!strcmp(how, "kill"))
		kill(getpid(), SIGKILL);
	if (!strcmp(how, "hang"))
		for (;;)
			pause();
	if (!strcmp(how, "spin"))
		for (volatile unsigned long i = 0;; i++)
			;
	if (!strcmp(how, "flood"))
		while (write(1, block, sizeof block) > 0)
			;
	if (!strcmp(how, "eat"))
		for (int i = 0; i < 400; i++) { /* bounded, should nothing else bound it */
			char *memory = malloc(1 << 20);
			if (!memory)
				break;
			memset(memory, i | 1, 1 << 20);
		}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int ready[2];
	if (argc != 5 || pipe(ready) < 0)
		return 2;
	int count = atoi(argv[1]), fd = atoi(argv[2]);
	for (int i = 0; i < count; i++)
		leave_one(i % 4, ready[1]);
	for (int i = 0; i < count; i++) {
		char byte;
		if (read(ready[0], &byte, 1) != 1)
			return 3;
	}
	if (write(fd, "ready\n", 6) != 6)
		return 3;
	end(argv[3]);
}
