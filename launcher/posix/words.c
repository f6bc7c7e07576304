/* Of the words that not every system has a meaning for, none is known here: a plan that holds one is refused. */
#include "../words.h"

const struct name PLATFORM_RESOURCES[] = {{NULL, 0}};

int platform_word(struct reader *reader, const char *word, const char *start, struct plan *plan)
{
	(void)reader, (void)word, (void)start, (void)plan;
	return 1;
}

int check_plan(const struct plan *plan, const char **why)
{
	(void)plan, (void)why;
	return 0;
}
