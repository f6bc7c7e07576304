/* What a sandbox costs the program inside it: inside LIST SCRATCH SOURCE COUNT
 *
 * Prints a line "name seconds" for each part, by its own clock: getpid(2) COUNT times; stat(2), then open(2) and close(2), of every
 * file that LIST names; the compilation of SOURCE by gcc, whose output goes to SCRATCH. "missed" is how many files could not be
 * seen: it must be the same bare and inside, or the times do not compare.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char **names;
static size_t many;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_list(const char *path)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t size = 0, room = 0;
	ssize_t length;

	if (!file)
		exit(3);
	while ((length = getline(&line, &size, file)) > 0) {
		line[length - 1] = 0;
		if (many == room) {
			room = room ? 2 * room : 1024;
			names = realloc(names, room * sizeof *names);
		}
		names[many++] = strdup(line);
	}
	fclose(file);
}

static size_t stat_all(void)
{
	struct stat found;
	size_t missed = 0;
	for (size_t i = 0; i < many; i++)
		missed += stat(names[i], &found) != 0;
	return missed;
}

static size_t open_all(void)
{
	size_t missed = 0;
	for (size_t i = 0; i < many; i++) {
		int fd = open(names[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			missed++;
		else
			close(fd);
	}
	return missed;
}

static void compile(const char *source, const char *scratch)
{
	char output[4096];
	snprintf(output, sizeof output, "%s/inside-%d.s", scratch, (int)getpid());
	char *words[] = { "gcc", "-O2", "-S", "-o", output, (char *)source, NULL };
	pid_t child;
	int status;
	if (posix_spawnp(&child, "gcc", NULL, NULL, words, environ) || waitpid(child, &status, 0) != child || status)
		exit(4);
	unlink(output);
}

int main(int count, char **words)
{
	if (count != 5)
		return 2;
	read_list(words[1]);
	if (chdir(words[2])) /* gcc looks for its parts from where it is, which must be visible */
		return 3;
	setenv("TMPDIR", words[2], 1);
	long calls = atol(words[4]);
	size_t missed = stat_all() + open_all(); /* not timed: the caches fill */

	double last = now(), then;
	for (long i = 0; i < calls; i++)
		syscall(SYS_getpid);
	then = now(), printf("getpid %.9f\n", then - last), last = then;
	stat_all();
	then = now(), printf("stat %.9f\n", then - last), last = then;
	open_all();
	then = now(), printf("open+close %.9f\n", then - last), last = then;
	compile(words[3], words[2]);
	printf("compile %.9f\nmissed %zu\n", now() - last, missed);
	return 0;
}
