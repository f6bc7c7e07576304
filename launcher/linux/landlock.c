/* The second wall around files, and the first around abstract sockets and signals: landlock(7). */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits that this machine's headers may be too old to name; Documentation/userspace-api/landlock.rst. */
enum { FS_REFER = 1 << 13, FS_TRUNCATE = 1 << 14, FS_IOCTL_DEV = 1 << 15, FS_RESOLVE_UNIX = 1 << 16 };
enum { NET_BIND_TCP = 1, NET_CONNECT_TCP = 2 };
enum { SCOPE_ABSTRACT_UNIX_SOCKET = 1, SCOPE_SIGNAL = 2 };

struct ruleset { uint64_t fs, net, scoped; };

static const uint64_t READ = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
static const uint64_t WRITE = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
	LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
	LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM | FS_REFER | FS_TRUNCATE;
static const uint64_t DEVICE = LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
static const uint64_t OF_FILES = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
	LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV;

int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	return abi < 0 ? 0 : (int)abi;
}

static uint64_t handled(int abi)
{
	uint64_t all = (1 << 13) - 1;
	if (abi >= 2)
		all |= FS_REFER;
	if (abi >= 3)
		all |= FS_TRUNCATE;
	if (abi >= 5)
		all |= FS_IOCTL_DEV;
	if (abi >= 9)
		all |= FS_RESOLVE_UNIX;
	return all;
}

/* As open_strictly() where openat2(2) is refused, as by older container engines and in a sandbox of our own: directory by directory, none a link. */
static int open_by_steps(const char *path)
{
	char name[256];
	int place = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	while (place >= 0 && *(path += strspn(path, "/"))) {
		struct stat status;
		size_t size = strcspn(path, "/");
		int next = -1;
		if (size < sizeof name) {
			memcpy(name, path, size);
			name[size] = '\0';
			next = openat(place, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		} else {
			errno = ENAMETOOLONG;
		}
		if (next >= 0 && (fstat(next, &status) < 0 || S_ISLNK(status.st_mode))) {
			close(next);
			next = -1;
			errno = ELOOP;
		}
		int error = errno;
		close(place);
		errno = error;
		place = next;
		path += size;
	}
	return place;
}

/* The host's paths are followed by no link that a run may have put in their place; /proc/self is one, to ourselves. */
static int open_place(const char *path)
{
	static const char own[] = "/proc/self/";
	if (!strncmp(path, own, sizeof own - 1))
		return open(path, O_PATH | O_CLOEXEC);
	int place = open_strictly(path, O_PATH);
	return place < 0 && (errno == ENOSYS || errno == EPERM) ? open_by_steps(path) : place;
}

static void add_rule(int ruleset, const struct rule *rule, uint64_t known, struct record *record)
{
	struct stat status;
	int path = open_place(rule->path);
	if (path < 0 && errno == EACCES && rule->access == 's')
		return; /* whom the modes keep out needs no rule */
	if (path < 0 || fstat(path, &status) < 0)
		die(record, "landlock", rule->path);
	struct landlock_path_beneath_attr beneath = {.parent_fd = path};
	beneath.allowed_access = strchr("rsf", rule->access) ? READ : rule->access == 'd' ? DEVICE : READ | WRITE;
	/*
	 * At each open the kernel asks whether the file could be truncated too, and looks for a rule that allows it up to the root. Of what
	 * is all the host's, and read-only, truncate(2) is refused to the command as to every stranger: there the search may end early.
	 */
	if (rule->access == 'f')
		beneath.allowed_access = READ | FS_TRUNCATE;
	if (rule->access == 'p') /* a socket is reached by its name only where nobody but the run can have made it */
		beneath.allowed_access |= FS_RESOLVE_UNIX;
	beneath.allowed_access &= known;
	if (!S_ISDIR(status.st_mode))
		beneath.allowed_access &= OF_FILES;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
		die(record, "landlock", rule->path);
	close(path);
}

/* A domain around the reaper and all of its run: what is in it can signal only what is in it or in a domain nested in it. */
void restrict_signals(struct record *record)
{
	struct ruleset attributes = {.fs = FS_REFER, .scoped = SCOPE_SIGNAL};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
	int root = open("/", O_PATH | O_CLOEXEC);
	/* Every domain denies it, the inner one's rules could not give it back: LANDLOCK_ACCESS_FS_REFER. */
	struct landlock_path_beneath_attr everything = {.allowed_access = FS_REFER, .parent_fd = root};
	if (ruleset < 0 || root < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &everything, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		die(record, "landlock", "scope");
	close(root);
	close(ruleset);
}

void restrict_files(const struct plan *plan, struct record *record)
{
	if (!plan->landlock_abi)
		return;
	struct ruleset attributes = {.fs = handled(plan->landlock_abi)};
	size_t size = sizeof attributes.fs;
	if (plan->landlock_abi >= 4) {
		size += sizeof attributes.net;
		attributes.net = plan->landlock_net ? NET_BIND_TCP | NET_CONNECT_TCP : 0;
	}
	if (plan->landlock_abi >= 6) {
		size += sizeof attributes.scoped;
		attributes.scoped = plan->landlock_scope ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0;
	}
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
	if (ruleset < 0)
		die(record, "landlock", "ruleset");
	for (size_t i = 0; i < plan->n_rules; i++)
		add_rule(ruleset, &plan->rules[i], attributes.fs, record);
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		die(record, "landlock", "restrict");
	close(ruleset);
}
