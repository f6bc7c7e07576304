/* Plans that were read before, by their words: what differs from run to run is the command, which comes last. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS = 32 };
static struct kept *plans;

/* last: NULL for the first one. NULL: there are no more. */
struct kept *each_plan(struct kept *last)
{
	return last ? last->next : plans;
}

static void free_plan(struct kept *kept)
{
	if (!kept)
		return;
	drop_prepared(kept);
	free(kept->variables);
	free(kept->words);
	free(kept);
}

/* The same bytes mean the same: so what follows them is the command here too, where it was when they were read. */
static bool begins_with(const struct kept *kept, const char *words, size_t size)
{
	return size > kept->size + sizeof "exec" && !memcmp(words, kept->words, kept->size) && !strcmp(words + kept->size, "exec");
}

/* Read twice: where the plan ends is known only afterwards, and it borrows from its own copy. */
static struct kept *read_plan(const char *words, size_t size, const char **why)
{
	struct kept *kept = calloc(1, sizeof *kept);
	*why = "";
	errno = ENOMEM;
	if (!kept || !(kept->variables = malloc((count_words(words, size) + 1) * sizeof *kept->variables)))
		goto failed;
	errno = EINVAL;
	if (parse_plan(words, size, kept->variables, &kept->plan, &kept->size, why) < 0)
		goto failed;
	errno = ENOMEM;
	if (!(kept->words = malloc(kept->size + 1)))
		goto failed;
	memcpy(kept->words, words, kept->size);
	parse_plan(kept->words, kept->size, kept->variables, &kept->plan, &kept->size, why);
	kept->preparable = can_be_prepared(&kept->plan);
	return kept;
failed:;
	int error = errno;
	free_plan(kept);
	errno = error;
	return NULL;
}

static void forget(struct kept *kept)
{
	struct kept **link = &plans;
	while (*link != kept)
		link = &(*link)->next;
	*link = kept->next;
	free_plan(kept);
}

/* The least recently used one makes room. */
static void list(struct kept *kept)
{
	struct kept *oldest = plans;
	int count = 0;
	for (struct kept *other = plans; other; other = other->next, count++)
		if (other->last_use < oldest->last_use)
			oldest = other;
	if (count >= PLANS)
		forget(oldest);
	kept->next = plans;
	plans = kept;
}

/* NULL: errno, and what is wrong with the words. Valid until the next call. */
struct kept *keep_plan(const char *words, size_t size, const char **why)
{
	if (!size || words[size - 1]) {
		*why = "no words";
		errno = EINVAL;
		return NULL;
	}
	for (struct kept *kept = plans; kept; kept = kept->next)
		if (begins_with(kept, words, size))
			return kept;
	struct kept *kept = read_plan(words, size, why);
	if (kept)
		list(kept);
	return kept;
}

/* Of what is large a few would fill the memory: it is not kept. */
void forget_if_large(struct kept *kept)
{
	if (kept->size > MAX_MESSAGE)
		forget(kept);
}
