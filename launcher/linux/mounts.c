/*
 * The files that a command sees. What all runs of a plan share is built once, in a mount namespace that they inherit
 * by clone(2); a run mounts only what is its own. Sources are opened on the host, as detached copies (open_tree(2)),
 * before the host's tree is left; targets are opened without following any link, for they may lie in a directory that
 * an earlier run could write to (CVE-2026-87766).
 */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static uint64_t attributes(const struct mount_op *op)
{
	return MOUNT_ATTR_NOSUID | (op->read_only ? MOUNT_ATTR_RDONLY : 0) | (op->noexec ? MOUNT_ATTR_NOEXEC : 0) |
	       (op->nodev ? MOUNT_ATTR_NODEV : 0);
}

/* Of every mount of a detached tree; propagation ends. Where that can't be done a copy that has them takes its place. */
static int set_attributes(int *tree, uint64_t attributes)
{
	int result = sys_mount_setattr(*tree, AT_RECURSIVE, attributes, MS_PRIVATE, 0);
	if (result == 0 || errno != ENOSYS)
		return result;
	int copy = remount_tree(*tree, attributes);
	if (copy < 0)
		return -1;
	close(*tree);
	*tree = copy;
	return 0;
}

/* Of a directory's mount that is attached. */
static int make_read_only(int place)
{
	int result = sys_mount_setattr(place, 0, MOUNT_ATTR_RDONLY, 0, 0);
	return result == 0 || errno != ENOSYS ? result : remount_directory(place, MOUNT_ATTR_RDONLY);
}

static int open_tree_of(const struct mount_op *op, uint32_t host_uid, const char **step)
{
	*step = "open";
	int source = open_strictly(op->source, O_PATH);
	if (source < 0)
		return -1;
	*step = "mount";
	int tree = sys_open_tree(source, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int error = errno;
	close(source);
	errno = error;
	if (tree < 0)
		return -1;
	if (set_attributes(&tree, attributes(op)) < 0)
		goto failed;
	if (op->idmap) {
		*step = "idmap";
		int map = map_fd(op->uid, op->gid, host_uid);
		if (map < 0 || sys_mount_setattr(tree, 0, MOUNT_ATTR_IDMAP, 0, map) < 0)
			goto failed;
	}
	return tree;
failed:
	error = errno;
	close(tree);
	errno = error;
	return -1;
}

int try_idmap(const char *path)
{
	const char *step;
	const struct mount_op op = {.source = path, .idmap = true};
	int tree = open_tree_of(&op, 65534, &step);
	if (tree >= 0)
		close(tree);
	return tree < 0 ? -1 : 0;
}

int open_trees(const struct plan *plan, bool shared, uint32_t host_uid, int *trees, const char **object, const char **step)
{
	for (size_t i = 0; i < plan->n_mounts; i++) {
		const struct mount_op *op = &plan->mounts[i];
		trees[i] = -1;
		if (op->shared != shared || op->kind != MOUNT_BIND)
			continue;
		trees[i] = open_tree_of(op, host_uid, step);
		if (trees[i] < 0) {
			int error = errno;
			*object = op->source;
			while (i-- > 0)
				if (trees[i] >= 0)
					close(trees[i]);
			errno = error;
			return -1;
		}
	}
	return 0;
}

/* The directory that holds a new entry, and the entry's name. */
static int open_parent(const char *path, const char **name)
{
	char parent[4096];
	const char *slash = strrchr(path, '/');
	size_t size = (size_t)(slash - path);
	if (size >= sizeof parent) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(parent, path, size);
	parent[size] = '\0';
	*name = slash + 1;
	return open_strictly(size ? parent : "/", O_PATH | O_DIRECTORY);
}

static int write_content(int directory, const char *name, const struct mount_op *op)
{
	int file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, op->mode);
	if (file < 0)
		return -1;
	size_t size = strlen(op->source);
	ssize_t written = write(file, op->source, size);
	close(file);
	return written == (ssize_t)size ? 0 : -1;
}

static int make_device(int directory, const char *name)
{
	/* Documentation/admin-guide/devices.txt */
	static const struct { const char *name; unsigned major, minor; } devices[] = {
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	};
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
		if (!strcmp(name, devices[i].name))
			return mknodat(directory, name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor));
	errno = ENODEV;
	return -1;
}

static int make_entry(const struct mount_op *op)
{
	const char *name;
	int directory = open_parent(op->target, &name), result = -1;
	if (directory < 0)
		return -1;
	if (op->kind == MOUNT_DIR)
		result = mkdirat(directory, name, op->mode) < 0 && errno != EEXIST ? -1 : 0;
	else if (op->kind == MOUNT_FILE)
		result = write_content(directory, name, op);
	else if (op->kind == MOUNT_SYMLINK)
		result = symlinkat(op->source, directory, name);
	else if (op->kind == MOUNT_DEVICE)
		result = make_device(directory, name);
	int error = errno;
	close(directory);
	errno = error;
	return result;
}

static int configure(int context, const char *data)
{
	char option[128];
	while (data && *data) {
		size_t size = strcspn(data, ",");
		if (size >= sizeof option) {
			errno = EINVAL;
			return -1;
		}
		memcpy(option, data, size);
		option[size] = '\0';
		char *equals = strchr(option, '=');
		if (!equals) {
			errno = EINVAL;
			return -1;
		}
		*equals = '\0';
		if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, option, equals + 1, 0) < 0)
			return -1;
		data += size + (data[size] == ',');
	}
	return (int)syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

static int make_mount(const char *type, const struct mount_op *op)
{
	int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), mount = -1;
	if (context < 0)
		return -1;
	if (configure(context, op->data) == 0)
		mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes(op) & ~(uint64_t)MOUNT_ATTR_RDONLY);
	int error = errno;
	close(context);
	errno = error;
	return mount;
}

/*
 * In a /proc of the run's own Linux 5.10 (no longer 6.1) leaves the settings of its network without an owner, as its user
 * namespace has no user 0, and what has none can't be written to. In the /proc that will be covered they are root's.
 */
static int write_sysctl(int proc, const char *name, const char *value)
{
	if (write_text(proc, name, value) == 0)
		return 0;
	int covered = errno == EACCES ? open_strictly("/proc", O_PATH | O_DIRECTORY) : -1;
	if (covered < 0)
		return -1;
	int result = write_text(covered, name, value), error = errno;
	close(covered);
	errno = error;
	return result;
}

/* While /proc is still writable, by the namespace's own root: what the kernel keeps for each namespace. */
static int write_sysctls(const struct plan *plan, int proc, const char **object, const char **step)
{
	for (size_t i = 0; i < plan->n_sysctls; i++) {
		*step = "sysctl";
		*object = plan->sysctls[i].name;
		if (write_sysctl(proc, plan->sysctls[i].name, plan->sysctls[i].value) < 0)
			return -1;
	}
	return 0;
}

int attach(int mount, const char *target)
{
	int place = open_strictly(target, O_PATH);
	if (place < 0)
		return -1;
	int result = sys_move_mount(mount, place), error = errno;
	close(place);
	errno = error;
	return result;
}

static int new_mount(const struct plan *plan, const struct mount_op *op, const char **object, const char **step)
{
	int mount = -1, result = -1;
	if (op->kind == MOUNT_ALIAS) {
		int source = open_strictly(op->source, O_PATH);
		if (source >= 0) {
			mount = sys_open_tree(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
			close(source);
		}
	} else {
		mount = make_mount(op->kind == MOUNT_PROC ? "proc" : "tmpfs", op);
	}
	if (mount < 0)
		return -1;
	if (op->kind == MOUNT_PROC && write_sysctls(plan, mount, object, step) < 0)
		goto out;
	*object = op->target;
	result = attach(mount, op->target);
	if (result == 0 && op->read_only)
		result = make_read_only(mount);
out:;
	int error = errno;
	close(mount);
	errno = error;
	return result;
}

static int seal(const char *target)
{
	int place = open_strictly(target, O_PATH);
	if (place < 0)
		return -1;
	int result = make_read_only(place), error = errno;
	close(place);
	errno = error;
	return result;
}

static enum part part_of(const struct mount_op *op)
{
	return op->shared ? PART_SHARED : op->kind == MOUNT_PROC ? PART_PROC : PART_OWN;
}

int apply_mounts(const struct plan *plan, enum part part, const int *trees, const char **object, const char **step)
{
	for (size_t i = 0; i < plan->n_mounts; i++) {
		const struct mount_op *op = &plan->mounts[i];
		int result;
		if (part_of(op) != part)
			continue;
		*object = op->target;
		*step = "mount";
		switch (op->kind) {
		case MOUNT_BIND:
			result = attach(trees[i], op->target);
			break;
		case MOUNT_ALIAS:
		case MOUNT_TMPFS:
		case MOUNT_PROC:
			result = new_mount(plan, op, object, step);
			break;
		case MOUNT_SEAL:
			result = seal(op->target);
			break;
		default:
			*step = "make";
			result = make_entry(op);
		}
		if (result < 0)
			return -1;
	}
	return 0;
}

/* A tmpfs becomes the root; what was the root is detached and with it the host is out of sight: pivot_root(2). */
int new_root(void)
{
	/* Any directory serves: the sources are open already. /proc is there, or the namespace could not be kept. */
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	if (mount("proc-sandbox", "/proc", "tmpfs", MS_NOSUID, "mode=755,size=4m") < 0)
		return -1;
	if (chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	return umount2(".", MNT_DETACH);
}

static int build_view(const struct plan *plan, const int *trees, const char **object, const char **step)
{
	int view = -1;
	*object = "view";
	*step = "unshare";
	if (unshare(CLONE_NEWNS) < 0)
		return -1;
	view = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	*step = "pivot_root";
	if (view >= 0 && (new_root() < 0 || apply_mounts(plan, PART_SHARED, trees, object, step) < 0)) {
		int error = errno;
		close(view);
		errno = error;
		view = -1;
	}
	int error = errno;
	if (return_home() < 0)
		_exit(125);
	errno = error;
	return view;
}

static bool has_idmap(const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_mounts; i++)
		if (plan->mounts[i].shared && plan->mounts[i].idmap)
			return true;
	return false;
}

/* Views are kept by the words that made them, the least recently used one goes. */
struct view { char *key; size_t size; uint32_t uid; int fd; struct origins *origins; uint64_t used; };
enum { VIEWS = 32 };
static struct view views[VIEWS];

static void forget_view(struct view *view)
{
	if (!view->key)
		return;
	close(view->fd);
	free_origins(view->origins);
	free(view->key);
	*view = (struct view){0};
}

/* The host's mounts have changed. */
void forget_views(void)
{
	for (size_t i = 0; i < VIEWS; i++)
		forget_view(&views[i]);
}

/* Forgets those of which a source has been replaced, as ld.so.cache is at each installation; returns whether there were any. */
bool check_views(void)
{
	bool found = false;
	for (size_t i = 0; i < VIEWS; i++)
		if (views[i].key && !are_current(views[i].origins)) {
			forget_view(&views[i]);
			found = true;
		}
	return found;
}

static int fill_view(struct view *view, const struct plan *plan, uint32_t host_uid, const char **object, const char **step)
{
	int trees[MAX_MOUNTS];
	struct view made = {.key = malloc(plan->view_key_size), .size = plan->view_key_size, .fd = -1};
	if (!made.key)
		return -1;
	memcpy(made.key, plan->view_key, plan->view_key_size);
	if (open_trees(plan, true, host_uid, trees, object, step) < 0) {
		free(made.key);
		return -1;
	}
	made.origins = note_origins(plan, true, trees);
	if (made.origins)
		made.fd = build_view(plan, trees, object, step);
	int error = errno;
	for (size_t i = 0; i < plan->n_mounts; i++)
		if (trees[i] >= 0)
			close(trees[i]);
	if (made.fd < 0) {
		free_origins(made.origins);
		free(made.key);
		errno = error;
		return -1;
	}
	forget_view(view);
	*view = made;
	return 0;
}

int find_view(const struct plan *plan, uint32_t host_uid, const char **object, const char **step)
{
	static uint64_t clock_;
	struct view *place = &views[0];
	uint32_t uid = has_idmap(plan) ? host_uid : 0;
	for (struct view *view = views; view < views + VIEWS; view++) {
		if (view->key && view->size == plan->view_key_size && view->uid == uid &&
		    !memcmp(view->key, plan->view_key, plan->view_key_size)) {
			view->used = ++clock_;
			return view->fd;
		}
		if (view->used < place->used)
			place = view;
	}
	if (fill_view(place, plan, host_uid, object, step) < 0)
		return -1;
	place->uid = uid;
	place->used = ++clock_;
	return place->fd;
}
