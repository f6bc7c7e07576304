/*
 * What mount_setattr(2) does, for kernels before 5.12: there mount(2) changes one mount at a time, and only where it is
 * attached. So a tree goes to a mount namespace that nobody else is in, and becomes private and then the root: the table
 * shows that tree and no more, and no path leads out of it. Each of its mounts gets the attributes; the tree leaves as a
 * detached copy, which has them too.
 *
 * Others may rename directories of the tree meanwhile. A mount's path is therefore only where it is looked for; what is
 * found is what the table meant if it has the same id, else the run is refused.
 *
 * What remains: a mount that is out of the tree while the table is read, and in it again when the copy is made, is not seen. It
 * takes somebody who may rename directories on the way to it, at that moment, and mount_setattr(2) leaves no such moment.
 */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { OF_MOUNT = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC };
enum { NOSYMFOLLOW = 1 << 8, HAS_NOSYMFOLLOW = 1 << 13 }; /* since 5.10: as mount(2) takes it, as statfs(2) tells it */
/* The attributes have the same numbers for mount_setattr(2), mount(2) and statfs(2). */
#define SAME(name) _Static_assert(MOUNT_ATTR_##name == (int)MS_##name && (int)MS_##name == (int)ST_##name, #name)
SAME(RDONLY);
SAME(NOSUID);
SAME(NODEV);
SAME(NOEXEC);

struct mounted { int id, parent; char *path; };
struct table { struct mounted *rows; size_t count; };

/* What the mount has it keeps: it may be locked (mount_namespaces(7)). Of access times nothing is said, so they stay too. */
static int remount(int place, const char *path, uint64_t attributes)
{
	struct statvfs status;
	if (fstatvfs(place, &status) < 0)
		return -1;
	unsigned long kept = (status.f_flag & OF_MOUNT) | (status.f_flag & HAS_NOSYMFOLLOW ? NOSYMFOLLOW : 0);
	return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | kept | attributes, NULL);
}

int remount_directory(int place, uint64_t attributes)
{
	if (fchdir(place) < 0 || remount(place, ".", attributes) < 0)
		return -1;
	return chdir("/");
}

/* By its descriptor, in the /proc of home: it may be a file, and no path is walked a second time. */
static int remount_found(int proc, int place, uint64_t attributes)
{
	char path[64];
	snprintf(path, sizeof path, "thread-self/fd/%d", place);
	return fchdir(proc) < 0 ? -1 : remount(place, path, attributes);
}

/* STATX_MNT_ID and stx_mnt_id, which musl's headers do not have; the kernel's <linux/stat.h> cannot be had beside them. */
enum { MOUNT_ID = 0x1000, MOUNT_ID_AT = 0x90 / sizeof(uint64_t) };

static int mount_id(int place)
{
	union { struct statx known; uint64_t words[32]; } status;
	_Static_assert(sizeof status == sizeof status.known, "struct statx has 256 bytes");
	if (statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, MOUNT_ID, &status.known) < 0)
		return -1;
	return status.known.stx_mask & MOUNT_ID ? (int)status.words[MOUNT_ID_AT] : -1;
}

/* Spaces and their like are written as \ooo: proc_pid_mountinfo(5). */
static void unescape(char *path)
{
	char *to = path;
	for (const char *from = path; *from; to++) {
		unsigned value;
		bool escaped = *from == '\\' && sscanf(from + 1, "%3o", &value) == 1;
		*to = escaped ? (char)value : *from;
		from += escaped ? 4 : 1;
	}
	*to = '\0';
}

static int add_row(struct table *table, const char *line)
{
	struct mounted row, *rows = realloc(table->rows, (table->count + 1) * sizeof row);
	if (!rows)
		return -1;
	table->rows = rows;
	if (sscanf(line, "%d %d %*s %*s %ms", &row.id, &row.parent, &row.path) != 3) {
		errno = EBADMSG;
		return -1;
	}
	unescape(row.path);
	rows[table->count++] = row;
	return 0;
}

static int read_table(int proc, struct table *table)
{
	int descriptor = openat(proc, "thread-self/mountinfo", O_RDONLY | O_CLOEXEC), result = 0;
	FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "r");
	if (!file)
		return -1;
	char *line = NULL;
	size_t room = 0;
	while (result == 0 && getline(&line, &room, file) > 0)
		result = add_row(table, line);
	int error = errno;
	if (result == 0 && ferror(file))
		result = -1;
	free(line);
	fclose(file);
	errno = error;
	return result;
}

static int parent_of(const struct table *table, int id)
{
	for (size_t i = 0; i < table->count; i++)
		if (table->rows[i].id == id)
			return table->rows[i].parent;
	return -1;
}

/* Whether a mount is the other one, or mounted on it or on what is. */
static bool is_on(const struct table *table, int id, int base)
{
	while (id >= 0 && id != base)
		id = parent_of(table, id);
	return id >= 0;
}

/*
 * Another mount lies on its root, as on an automounter's (autofs): nothing reaches it. Judged by ids, which no renaming
 * changes: what was found is mounted on it, and ".." leads out of both at once.
 */
static bool is_covered(const struct table *table, const struct mounted *row, int found)
{
	int above = openat(found, "..", O_PATH | O_CLOEXEC);
	if (above < 0)
		return false;
	int outside = mount_id(above);
	close(above);
	return is_on(table, mount_id(found), row->id) && is_on(table, row->parent, outside);
}

static int restrict_row(int proc, const struct table *table, const struct mounted *row, uint64_t attributes)
{
	int found = open_strictly(row->path, O_PATH), result = 0;
	if (found < 0)
		return -1;
	if (mount_id(found) == row->id) {
		result = remount_found(proc, found, attributes);
	} else if (!is_covered(table, row, found)) {
		errno = EBUSY;
		result = -1;
	}
	int error = errno;
	close(found);
	errno = error;
	return result;
}

static int restrict_tree(int proc, int tree, uint64_t attributes)
{
	struct table table = {0};
	if (fchdir(tree) < 0 || chroot(".") < 0)
		return -1;
	int result = read_table(proc, &table);
	for (size_t i = 0; i < table.count && result == 0; i++)
		result = restrict_row(proc, &table, &table.rows[i], attributes);
	int error = errno;
	for (size_t i = 0; i < table.count; i++)
		free(table.rows[i].path);
	free(table.rows);
	errno = error;
	return result;
}

/* Private, before it is looked at: from then on nothing that is mounted elsewhere comes in. */
static int attach_alone(int proc, int tree, bool directory)
{
	char path[64];
	if (new_root() < 0 || (directory ? mkdir("/tree", 0700) : mknod("/tree", S_IFREG | 0600, 0)) < 0)
		return -1;
	snprintf(path, sizeof path, "thread-self/fd/%d", tree);
	if (attach(tree, "/tree") < 0 || fchdir(proc) < 0)
		return -1;
	return mount(NULL, path, NULL, MS_REC | MS_PRIVATE, NULL);
}

static int restricted_copy(int proc, int tree, uint64_t attributes)
{
	struct stat status;
	if (fstat(tree, &status) < 0)
		return -1;
	bool directory = S_ISDIR(status.st_mode);
	if (attach_alone(proc, tree, directory) < 0)
		return -1;
	if ((directory ? restrict_tree(proc, tree, attributes) : remount_found(proc, tree, attributes)) < 0)
		return -1;
	return sys_open_tree(tree, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

int remount_tree(int tree, uint64_t attributes)
{
	int copy = -1, proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return -1;
	if (unshare(CLONE_NEWNS) == 0) {
		copy = restricted_copy(proc, tree, attributes);
		int error = errno;
		if (return_home() < 0)
			_exit(125); /* in a foreign root nothing may go on; every run ends with us */
		errno = error;
	}
	int error = errno;
	close(proc);
	errno = error;
	return copy;
}
