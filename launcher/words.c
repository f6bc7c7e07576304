/* Words -> struct plan: fixed arrays, borrowed strings, every bound checked, no system call. For every system. */
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

size_t count_words(const char *words, size_t size)
{
	size_t count = 0;
	for (size_t i = 0; i < size; i++)
		count += words[i] == '\0';
	return count;
}

const char *next_word(struct reader *reader)
{
	if (reader->at >= reader->end) {
		*reader->why = "words end too early";
		return NULL;
	}
	const char *word = reader->at;
	reader->at = memchr(word, '\0', (size_t)(reader->end - word));
	reader->at++; /* parse_words has checked that the last byte is NUL */
	return word;
}

int read_number(struct reader *reader, uint64_t most, uint64_t *value)
{
	const char *word = next_word(reader);
	char *end;
	if (!word)
		return -1;
	errno = 0;
	unsigned long long parsed = strtoull(word, &end, 10);
	if (errno || *end || end == word || *word == '-' || *word == '+' || *word == ' ' || parsed > most) {
		*reader->why = "not a number in range";
		return -1;
	}
	*value = parsed;
	return 0;
}

int look_up(const struct name *names, const char *word, uint64_t *value)
{
	for (; names->name; names++)
		if (!strcmp(names->name, word)) {
			*value = names->value;
			return 0;
		}
	return -1;
}

static const struct name RESOURCES[] = {
	{"RLIMIT_CPU", RLIMIT_CPU}, {"RLIMIT_FSIZE", RLIMIT_FSIZE}, {"RLIMIT_DATA", RLIMIT_DATA},
	{"RLIMIT_STACK", RLIMIT_STACK}, {"RLIMIT_CORE", RLIMIT_CORE}, {"RLIMIT_NPROC", RLIMIT_NPROC},
	{"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {NULL, 0},
};

int read_name(struct reader *reader, const struct name *names, uint64_t *value)
{
	const char *word = next_word(reader);
	if (!word)
		return -1;
	if (look_up(names, word, value) == 0)
		return 0;
	*reader->why = "unknown name";
	return -1;
}

static int rlimit(struct reader *reader, struct plan *plan)
{
	uint64_t resource, value;
	const char *word = next_word(reader);
	if (!word)
		return -1;
	if (look_up(RESOURCES, word, &resource) < 0 && look_up(PLATFORM_RESOURCES, word, &resource) < 0) {
		*reader->why = "unknown name";
		return -1;
	}
	if (read_number(reader, UINT64_MAX, &value) < 0)
		return -1;
	if (plan->start.n_rlimits == MAX_RLIMITS) {
		*reader->why = "too many rlimits";
		return -1;
	}
	plan->start.rlimits[plan->start.n_rlimits++] = (struct rlimit_op){(int)resource, value};
	return 0;
}

int read_small(struct reader *reader, uint64_t most, uint32_t *value)
{
	uint64_t parsed;
	if (read_number(reader, most, &parsed) < 0)
		return -1;
	*value = (uint32_t)parsed;
	return 0;
}

static int descriptor(struct reader *reader, struct plan *plan)
{
	uint32_t target;
	if (read_small(reader, 65535, &target) < 0)
		return -1;
	if (plan->n_targets == MAX_DESCRIPTORS) {
		*reader->why = "too many descriptors";
		return -1;
	}
	plan->targets[plan->n_targets++] = (int)target;
	return 0;
}

static int version(struct reader *reader)
{
	const char *found = next_word(reader);
	if (found && !strcmp(found, VERSION))
		return 0;
	*reader->why = "launcher " VERSION " is not the version that these words are for: build it again";
	return -1;
}

/* One directive and its operands. */
static int directive(struct reader *reader, struct plan *plan, char ***variables)
{
	const char *start = reader->at, *word = next_word(reader);
	uint32_t n;
	if (!word)
		return -1;
#define WORD(name) (!strcmp(word, name))
	if (WORD("env"))
		return (*(*variables)++ = (char *)next_word(reader)) ? 0 : -1;
	if (WORD("rlimit"))
		return rlimit(reader, plan);
	if (WORD("fd"))
		return descriptor(reader, plan);
	if (WORD("terminal"))
		return (plan->terminal = next_word(reader)) ? 0 : -1;
	if (WORD("version"))
		return version(reader);
	if (WORD("cwd"))
		return (plan->start.cwd = next_word(reader)) ? 0 : -1;
	if (WORD("timeout"))
		return read_number(reader, INT64_MAX / 2, &plan->timeout); /* what is added to now() must not overflow */
	if (WORD("grace"))
		return read_number(reader, INT64_MAX / 2, &plan->grace);
	if (WORD("held"))
		return plan->held = true, 0;
	if (WORD("umask"))
		return read_small(reader, 0777, &n) < 0 ? -1 : (plan->start.umask = (mode_t)n, 0);
	if (WORD("nice"))
		return read_small(reader, 19, &n) < 0 ? -1 : (plan->nice = (int)n, 0);
#undef WORD
	int known = platform_word(reader, word, start, plan);
	if (known > 0)
		*reader->why = "unknown word";
	return known > 0 ? -1 : known;
}

/* All before the command; storage: at least count_words() + 1 pointers. */
int parse_plan(const char *words, size_t size, char **storage, struct plan *plan, size_t *used, const char **why)
{
	struct reader reader = {words, words + size, why};
	char **variables = storage;
	memset(plan, 0, sizeof *plan);
	plan->start.envp = storage;
	plan->prepared = -1;
	*why = "no words";
	if (!size || words[size - 1])
		return -1;
	while (reader.at < reader.end && strcmp(reader.at, "exec"))
		if (directive(&reader, plan, &variables) < 0)
			return -1;
	*variables = NULL;
	*used = (size_t)(reader.at - words);
	return check_plan(plan, why);
}

/* What comes last: "exec", the program and its arguments; storage: at least count_words() pointers. */
int parse_command(const char *words, size_t size, char **storage, struct command *command, const char **why)
{
	struct reader reader = {words, words + size, why};
	*why = "no exec";
	if (!size || words[size - 1] || strcmp(next_word(&reader), "exec"))
		return -1;
	*why = "exec needs an argument vector";
	command->argv = storage;
	if (reader.at == reader.end)
		return -1;
	command->path = next_word(&reader);
	while (reader.at < reader.end)
		*storage++ = (char *)next_word(&reader);
	*storage = NULL;
	return command->argv[0] ? 0 : -1;
}

/* Both; storage: at least count_words() + 2 pointers. */
int parse_words(const char *words, size_t size, char **storage, struct plan *plan, const char **why)
{
	size_t used = 0;
	if (parse_plan(words, size, storage, plan, &used, why) < 0)
		return -1;
	for (char **variable = storage; *variable; variable++)
		storage = variable + 1;
	return parse_command(words + used, size - used, storage + 1, &plan->command, why);
}

/* argv -> words: argument vectors are contiguous in memory, but nothing promises it. NULL: no memory. */
char *join_words(int argc, char **argv, size_t *size)
{
	*size = 0;
	for (int i = 0; i < argc; i++)
		*size += strlen(argv[i]) + 1;
	char *words = malloc(*size + 1), *at = words;
	for (int i = 0; words && i < argc; i++)
		at = stpcpy(at, argv[i]) + 1;
	return words;
}
