/*
 * Uses the processor.
 *   busy side COUNT SECONDS      COUNT processes at once, for SECONDS of wall time
 *   busy after COUNT SECONDS     COUNT processes, one after the other, SECONDS of CPU time each
 */
#define _GNU_SOURCE
#include "burn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int side = !strcmp(argv[1], "side"), count = atoi(argv[2]);
	double amount = atof(argv[3]);
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid < 0)
			return 3;
		if (pid == 0) {
			burn(side ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, amount);
			_exit(0);
		}
		if (!side)
			waitpid(pid, NULL, 0);
	}
	while (wait(NULL) > 0)
		;
	puts("DONE");
	return 0;
}
