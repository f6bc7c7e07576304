/* The words that only Linux knows: namespaces, mounts, cgroups, Landlock, seccomp. No system call. */
#define _GNU_SOURCE
#include "../words.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

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
const struct name PLATFORM_RESOURCES[] = {
	{"RLIMIT_AS", RLIMIT_AS}, /* OpenBSD has none */
	{"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE}, {"RLIMIT_RTPRIO", RLIMIT_RTPRIO}, {"RLIMIT_NICE", RLIMIT_NICE},
	{"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING}, {NULL, 0},
};

static bool is(const char *word, size_t size, const char *name)
{
	return strlen(name) == size && !memcmp(word, name, size);
}

/* "ro,noexec,nodev,mode=755,idmap=1000:1000"; what follows "data=" up to the end is the file system's. */
static int mount_options(struct reader *reader, struct mount_op *op)
{
	const char *word = next_word(reader);
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
	const char *scope = next_word(reader);
	if (!scope || read_name(reader, KINDS, &kind) < 0)
		return -1;
	op->kind = (enum mount_kind)kind;
	op->shared = !strcmp(scope, "shared");
	if (!op->shared && strcmp(scope, "own")) {
		*reader->why = "a mount is shared or own";
		return -1;
	}
	op->source = next_word(reader);
	op->target = op->source ? next_word(reader) : NULL;
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
	list[*count].name = next_word(reader);
	list[*count].value = list[*count].name ? next_word(reader) : NULL;
	if (!list[*count].value)
		return -1;
	++*count;
	return 0;
}

static int seccomp(struct reader *reader, struct plan *plan)
{
	const char *word = next_word(reader);
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
	const char *access = next_word(reader);
	const char *path = access ? next_word(reader) : NULL;
	if (!path)
		return -1;
	if (plan->n_rules == MAX_RULES || !*access || !strchr("rswdpf", *access)) {
		*reader->why = "bad Landlock rule";
		return -1;
	}
	plan->rules[plan->n_rules++] = (struct rule){path, *access};
	return 0;
}

static int host_ids(struct reader *reader, struct plan *plan)
{
	if (read_small(reader, UINT32_MAX - 1, &plan->host_uid) < 0 || read_small(reader, 65536, &plan->host_uid_count) < 0)
		return -1;
	if (plan->host_uid && plan->host_uid_count)
		return 0;
	*reader->why = "host-ids must not hold 0";
	return -1;
}

int platform_word(struct reader *reader, const char *word, const char *start, struct plan *plan)
{
	uint64_t value;
	uint32_t n;
#define WORD(name) (!strcmp(word, name))
	if (WORD("mount"))
		return mount(reader, plan, start);
	if (WORD("landlock"))
		return landlock(reader, plan);
	if (WORD("unshare")) {
		if (read_name(reader, NAMESPACES, &value) < 0)
			return -1;
		plan->namespaces |= value;
		return 0;
	}
	if (WORD("ids"))
		return read_small(reader, UINT32_MAX - 1, &plan->uid) < 0 ? -1 : read_small(reader, UINT32_MAX - 1, &plan->gid);
	if (WORD("host-ids"))
		return host_ids(reader, plan);
	if (WORD("hostname"))
		return (plan->hostname = next_word(reader)) ? 0 : -1;
	if (WORD("cgroup2"))
		return (plan->cgroup2 = next_word(reader)) ? 0 : -1;
	if (WORD("cgroup1"))
		return pair(reader, plan->cgroup1, &plan->n_cgroup1, MAX_CONTROLLERS);
	if (WORD("set"))
		return pair(reader, plan->settings, &plan->n_settings, MAX_SETTINGS);
	if (WORD("sysctl"))
		return pair(reader, plan->sysctls, &plan->n_sysctls, MAX_SYSCTLS);
	if (WORD("seccomp"))
		return seccomp(reader, plan);
	if (WORD("landlock-abi"))
		return read_small(reader, 1000, &n) < 0 ? -1 : (plan->landlock_abi = (int)n, 0);
	if (WORD("landlock-net"))
		return plan->landlock_net = true, 0;
	if (WORD("landlock-scope"))
		return plan->landlock_scope = true, 0;
	if (WORD("network")) {
		if (read_name(reader, NETWORKS, &value) < 0)
			return -1;
		plan->network = (enum network)value;
		return 0;
	}
	if (WORD("reach")) {
		if (read_name(reader, REACHES, &value) < 0)
			return -1;
		plan->reach = (enum reach)value;
		return 0;
	}
	if (WORD("cpu-time"))
		return read_number(reader, INT64_MAX, &plan->cpu_time);
	if (WORD("sample"))
		return read_number(reader, INT64_MAX, &plan->sample_interval);
	if (WORD("sampled-memory"))
		return read_number(reader, INT64_MAX, &plan->sampled_memory);
	if (WORD("sampled-tasks"))
		return read_number(reader, INT64_MAX, &plan->sampled_tasks);
	if (WORD("sampled-cpu"))
		return read_number(reader, INT64_MAX, &plan->sampled_cpu_percent);
	if (WORD("prepared"))
		return read_small(reader, MAX_PREPARED, &n) < 0 ? -1 : (plan->prepared = (int)n, 0);
	if (WORD("oom-score-adj"))
		return (plan->oom_score_adj = next_word(reader)) ? 0 : -1;
#undef WORD
	return 1;
}

/* Whom the end of a reaper does not reach would outlive it. */
int check_plan(const struct plan *plan, const char **why)
{
	bool namespace = plan->namespaces & CLONE_NEWPID;
	if (namespace == (plan->reach == REACH_NAMESPACE))
		return 0;
	*why = "reach is namespace with a pid namespace, domain or children without";
	return -1;
}
