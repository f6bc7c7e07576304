/* What the two readers of words share: words.c knows those of every system, linux/words.c and posix/words.c the rest. */
#ifndef WORDS_H
#define WORDS_H

#include "launcher.h"

struct reader {
	const char *at, *end;
	const char **why;
};

struct name { const char *name; uint64_t value; };

const char *next_word(struct reader *reader);
int read_number(struct reader *reader, uint64_t most, uint64_t *value);
int read_small(struct reader *reader, uint64_t most, uint32_t *value);
int look_up(const struct name *names, const char *word, uint64_t *value);
int read_name(struct reader *reader, const struct name *names, uint64_t *value);

/* linux/words.c or posix/words.c. start: where the word's bytes begin. platform_word: 0, -1, or 1 for a word it does not know. */
extern const struct name PLATFORM_RESOURCES[];
int platform_word(struct reader *reader, const char *word, const char *start, struct plan *plan);
int check_plan(const struct plan *plan, const char **why);

#endif
