/* Uses the processor until a clock has gone on by so many seconds. */
#include <time.h>

static double seconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void burn(clockid_t clock, double amount)
{
	double until = seconds(clock) + amount;
	while (seconds(clock) < until)
		for (volatile int i = 0; i < 20000; i++)
			;
}
