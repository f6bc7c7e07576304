/* System calls for which older C libraries have no wrapper; numbers and structures are the kernel headers'. */
#ifndef KERNEL_H
#define KERNEL_H

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif

static inline int sys_open_tree(int directory, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, directory, path, flags);
}

static inline int sys_move_mount(int from, int to)
{
	return (int)syscall(SYS_move_mount, from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static inline int sys_mount_setattr(int mount, unsigned flags, uint64_t set, uint64_t propagation, int userns)
{
	struct mount_attr attributes = {.attr_set = set, .propagation = propagation, .userns_fd = (uint64_t)userns};
	return (int)syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | flags, &attributes, sizeof attributes);
}

/* No symbolic link anywhere on the way: what the planner resolved is what is opened, or nothing (openat2(2)). */
static inline int open_strictly(const char *path, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* mounts.c */
int attach(int mount, const char *target);
int new_root(void);

/* remount.c, where mount_setattr(2) is missing */
int remount_tree(int tree, uint64_t attributes); /* -> a detached copy of which every mount has them */
int remount_directory(int place, uint64_t attributes);

#endif
