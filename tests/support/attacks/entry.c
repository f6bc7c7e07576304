/* Enters the kernel by another door: entry int80 | x32. Prints TRIED, then ESCAPED with what getpid returned. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	puts("TRIED");
	fflush(stdout);
#ifdef __x86_64__
	long result;
	if (!strcmp(argv[1], "int80"))
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	else
		result = syscall(39 | 0x40000000);
	printf("ESCAPED %ld\n", result);
#endif
	return 0;
}
