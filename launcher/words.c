/* Words -> struct plan: fixed arrays, borrowed strings, every bound checked, no system call. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct reader {
	const char *at, *end;
	const char **why;
};

size_t count_words(const char *words, size_t size)
{
	size_t count = 0;
	for (size_t i = 0; i < size; i++)
		count += words[i] == '\0';
	return count;
}

static const char *next(struct reader *reader)
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

static int number(struct reader *reader, uint64_t most, uint64_t *value)
{
	const char *word = next(reader);
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

struct name { const char *name; uint64_t value; };

static int look_up(const struct name *names, const char *word, uint64_t *value)
{
	for (; names->name; names++)
		if (!strcmp(names->name, word)) {
			*value = names->value;
			return 0;
		}
	return -1;
}

static const struct name NAMESPACES[] = {
	{"user", CLONE_NEWUSER}, {"pid", CLONE_NEWPID}, {"mount", CLONE_NEWNS}, {"ipc", CLONE_NEWIPC},
	{"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"net", CLONE_NEWNET}, {NULL, 0},
};
static const struct name KINDS[] = {
	{"bind", MOUNT_BIND}, {"alias", MOUNT_ALIAS}, {"tmpfs", MOUNT_TMPFS}, {"proc", MOUNT_PROC}, {"dir", MOUNT_DIR},
	{"file", MOUNT_FILE}, {"symlink", MOUNT_SYMLINK}, {"device", MOUNT_DEVICE}, {"seal", MOUNT_SEAL}, {NULL, 0},
};
static const struct name REACHES[] = {
	{"namespace", REACH_NAMESPACE}, {"domain", REACH_DOMAIN}, {"children", REACH_CHILDREN}, {NULL, 0},
};
static const struct name NETWORKS[] = {
	{"none", NETWORK_NONE}, {"loopback", NETWORK_LOOPBACK}, {"host", NETWORK_HOST}, {NULL, 0},
};
static const struct name RESOURCES[] = {
	{"RLIMIT_CPU", RLIMIT_CPU}, {"RLIMIT_FSIZE", RLIMIT_FSIZE}, {"RLIMIT_DATA", RLIMIT_DATA},
	{"RLIMIT_STACK", RLIMIT_STACK}, {"RLIMIT_CORE", RLIMIT_CORE}, {"RLIMIT_NPROC", RLIMIT_NPROC},
	{"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {"RLIMIT_AS", RLIMIT_AS},
	{"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE}, {"RLIMIT_RTPRIO", RLIMIT_RTPRIO}, {"RLIMIT_NICE", RLIMIT_NICE},
	{"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING}, {NULL, 0},
};

static int named(struct reader *reader, const struct name *names, uint64_t *value)
{
	const char *word = next(reader);
	if (!word)
		return -1;
	if (look_up(names, word, value) == 0)
		return 0;
	*reader->why = "unknown name";
	return -1;
}

static bool is(const char *word, size_t size, const char *name)
{
	return strlen(name) == size && !memcmp(word, name, size);
}

/* "ro,noexec,nodev,mode=755,idmap=1000:1000"; what follows "data=" up to the end is the file system's. */
static int mount_options(struct reader *reader, struct mount_op *op)
{
	const char *word = next(reader);
	if (!word)
		return -1;
	op->mode = 0755;
	while (*word) {
		size_t size = strcspn(word, ",");
		char *end = NULL;
		if (is(word, size, "ro")) {
			op->read_only = true;
		} else if (is(word, size, "noexec")) {
			op->noexec = true;
		} else if (is(word, size, "nodev")) {
			op->nodev = true;
		} else if (!strncmp(word, "mode=", 5)) {
			op->mode = (mode_t)strtoul(word + 5, &end, 8);
			if (end != word + size || op->mode > 07777)
				goto bad;
		} else if (!strncmp(word, "idmap=", 6)) {
			op->idmap = true;
			op->uid = (uint32_t)strtoul(word + 6, &end, 10);
			if (*end != ':')
				goto bad;
			op->gid = (uint32_t)strtoul(end + 1, &end, 10);
			if (end != word + size)
				goto bad;
		} else if (!strncmp(word, "data=", 5)) {
			op->data = word + 5;
			return 0;
		} else {
			goto bad;
		}
		word += size + (word[size] == ',');
	}
	return 0;
bad:
	*reader->why = "bad mount option";
	return -1;
}

static int mount(struct reader *reader, struct plan *plan, const char *start)
{
	if (plan->n_mounts == MAX_MOUNTS) {
		*reader->why = "too many mounts";
		return -1;
	}
	struct mount_op *op = &plan->mounts[plan->n_mounts];
	uint64_t kind;
	const char *scope = next(reader);
	if (!scope || named(reader, KINDS, &kind) < 0)
		return -1;
	op->kind = (enum mount_kind)kind;
	op->shared = !strcmp(scope, "shared");
	if (!op->shared && strcmp(scope, "own")) {
		*reader->why = "a mount is shared or own";
		return -1;
	}
	op->source = next(reader);
	op->target = op->source ? next(reader) : NULL;
	if (!op->target || mount_options(reader, op) < 0)
		return -1;
	if (op->target[0] != '/' || (op->kind == MOUNT_BIND && op->source[0] != '/')) {
		*reader->why = "a mount needs absolute paths";
		return -1;
	}
	if (op->shared) { /* the planner puts the shared ones together and first: their bytes are the key of the view */
		if (plan->n_mounts && !plan->mounts[plan->n_mounts - 1].shared) {
			*reader->why = "a shared mount after an own one";
			return -1;
		}
		if (!plan->view_key)
			plan->view_key = start;
		plan->view_key_size = (size_t)(reader->at - plan->view_key);
	}
	plan->n_mounts++;
	return 0;
}

static int pair(struct reader *reader, struct setting *list, size_t *count, size_t most)
{
	if (*count == most) {
		*reader->why = "too many settings";
		return -1;
	}
	list[*count].name = next(reader);
	list[*count].value = list[*count].name ? next(reader) : NULL;
	if (!list[*count].value)
		return -1;
	++*count;
	return 0;
}

static int seccomp(struct reader *reader, struct plan *plan)
{
	const char *word = next(reader);
	if (!word)
		return -1;
	plan->seccomp = true;
	while (*word) {
		size_t size = strcspn(word, ",");
		if (!parse_filter_option(word, size, &plan->seccomp_options)) {
			*reader->why = "unknown filter option";
			return -1;
		}
		word += size + (word[size] == ',');
	}
	return 0;
}

static int landlock(struct reader *reader, struct plan *plan)
{
	const char *access = next(reader);
	const char *path = access ? next(reader) : NULL;
	if (!path)
		return -1;
	if (plan->n_rules == MAX_RULES || !*access || !strchr("rswdp", *access)) {
		*reader->why = "bad Landlock rule";
		return -1;
	}
	plan->rules[plan->n_rules++] = (struct rule){path, *access};
	return 0;
}

static int rlimit(struct reader *reader, struct plan *plan)
{
	uint64_t resource, value;
	if (named(reader, RESOURCES, &resource) < 0 || number(reader, UINT64_MAX, &value) < 0)
		return -1;
	if (plan->n_rlimits == MAX_RLIMITS) {
		*reader->why = "too many rlimits";
		return -1;
	}
	plan->rlimits[plan->n_rlimits++] = (struct rlimit_op){(int)resource, value};
	return 0;
}

static int small(struct reader *reader, uint64_t most, uint32_t *value)
{
	uint64_t parsed;
	if (number(reader, most, &parsed) < 0)
		return -1;
	*value = (uint32_t)parsed;
	return 0;
}

static int descriptor(struct reader *reader, struct plan *plan)
{
	uint32_t target;
	if (small(reader, 65535, &target) < 0)
		return -1;
	if (plan->n_targets == MAX_DESCRIPTORS) {
		*reader->why = "too many descriptors";
		return -1;
	}
	plan->targets[plan->n_targets++] = (int)target;
	return 0;
}

/* One directive and its operands. Returns 1 after "exec", which takes all the rest. */
static int directive(struct reader *reader, struct plan *plan, char ***storage, char ***variables)
{
	const char *start = reader->at, *word = next(reader);
	uint64_t value;
	uint32_t n;
	if (!word)
		return -1;
#define WORD(name) (!strcmp(word, name))
	if (WORD("mount"))
		return mount(reader, plan, start);
	if (WORD("env"))
		return (*(*variables)++ = (char *)next(reader)) ? 0 : -1;
	if (WORD("landlock"))
		return landlock(reader, plan);
	if (WORD("rlimit"))
		return rlimit(reader, plan);
	if (WORD("fd"))
		return descriptor(reader, plan);
	if (WORD("unshare")) {
		if (named(reader, NAMESPACES, &value) < 0)
			return -1;
		plan->namespaces |= value;
		return 0;
	}
	if (WORD("version")) {
		const char *version = next(reader);
		if (version && !strcmp(version, VERSION))
			return 0;
		*reader->why = "launcher " VERSION " is not the version that these words are for: build it again";
		return -1;
	}
	if (WORD("ids"))
		return small(reader, UINT32_MAX - 1, &plan->uid) < 0 ? -1 : small(reader, UINT32_MAX - 1, &plan->gid);
	if (WORD("host-ids")) {
		if (small(reader, UINT32_MAX - 1, &plan->host_uid) < 0 || small(reader, 65536, &plan->host_uid_count) < 0)
			return -1;
		if (plan->host_uid && plan->host_uid_count)
			return 0;
		*reader->why = "host-ids must not hold 0";
		return -1;
	}
	if (WORD("hostname"))
		return (plan->hostname = next(reader)) ? 0 : -1;
	if (WORD("cwd"))
		return (plan->cwd = next(reader)) ? 0 : -1;
	if (WORD("cgroup2"))
		return (plan->cgroup2 = next(reader)) ? 0 : -1;
	if (WORD("cgroup1"))
		return pair(reader, plan->cgroup1, &plan->n_cgroup1, MAX_CONTROLLERS);
	if (WORD("set"))
		return pair(reader, plan->settings, &plan->n_settings, MAX_SETTINGS);
	if (WORD("sysctl"))
		return pair(reader, plan->sysctls, &plan->n_sysctls, MAX_SYSCTLS);
	if (WORD("seccomp"))
		return seccomp(reader, plan);
	if (WORD("landlock-abi"))
		return small(reader, 1000, &n) < 0 ? -1 : (plan->landlock_abi = (int)n, 0);
	if (WORD("landlock-net"))
		return plan->landlock_net = true, 0;
	if (WORD("landlock-scope"))
		return plan->landlock_scope = true, 0;
	if (WORD("network")) {
		if (named(reader, NETWORKS, &value) < 0)
			return -1;
		plan->network = (enum network)value;
		return 0;
	}
	if (WORD("reach")) {
		if (named(reader, REACHES, &value) < 0)
			return -1;
		plan->reach = (enum reach)value;
		return 0;
	}
	if (WORD("timeout"))
		return number(reader, INT64_MAX, &plan->timeout);
	if (WORD("cpu-time"))
		return number(reader, INT64_MAX, &plan->cpu_time);
	if (WORD("sample"))
		return number(reader, INT64_MAX, &plan->sample_interval);
	if (WORD("sampled-memory"))
		return number(reader, INT64_MAX, &plan->sampled_memory);
	if (WORD("sampled-tasks"))
		return number(reader, INT64_MAX, &plan->sampled_tasks);
	if (WORD("sampled-cpu"))
		return number(reader, INT64_MAX, &plan->sampled_cpu_percent);
	if (WORD("umask"))
		return small(reader, 0777, &n) < 0 ? -1 : (plan->umask = n, 0);
	if (WORD("nice"))
		return small(reader, 19, &n) < 0 ? -1 : (plan->nice = (int)n, 0);
	if (WORD("oom-score-adj"))
		return (plan->oom_score_adj = next(reader)) ? 0 : -1;
	if (WORD("exec")) {
		if (!(plan->path = next(reader)))
			return -1;
		plan->argv = *storage;
		while (reader->at < reader->end)
			*(*storage)++ = (char *)next(reader);
		*(*storage)++ = NULL;
		if (plan->argv[0])
			return 1;
		*reader->why = "exec needs an argument vector";
		return -1;
	}
#undef WORD
	*reader->why = "unknown word";
	return -1;
}

/* Whom the end of a reaper does not reach would outlive it. */
static int check(const struct plan *plan, const char **why)
{
	bool namespace = plan->namespaces & CLONE_NEWPID;
	if (namespace == (plan->reach == REACH_NAMESPACE))
		return 0;
	*why = "reach is namespace with a pid namespace, domain or children without";
	return -1;
}

/*
 * storage: at least count_words() + 2 pointers. Variables fill it from the front, the argument vector, which comes
 * last, from behind them.
 */
int parse_words(const char *words, size_t size, char **storage, size_t n_storage, struct plan *plan, const char **why)
{
	struct reader reader = {words, words + size, why};
	memset(plan, 0, sizeof *plan);
	plan->envp = storage;
	*why = "no words";
	if (!size || words[size - 1] || n_storage < count_words(words, size) + 2)
		return -1;
	char **variables = storage, **arguments = NULL;
	while (reader.at < reader.end) {
		const char *word = reader.at;
		if (!strcmp(word, "exec")) {
			*variables = NULL;
			arguments = variables + 1;
		}
		int result = directive(&reader, plan, &arguments, &variables);
		if (result < 0)
			return -1;
		if (result > 0)
			return check(plan, why);
	}
	*why = "no exec";
	return -1;
}
