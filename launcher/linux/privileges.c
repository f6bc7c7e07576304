/* Identity, capabilities, resource limits. Raw system calls: libc's would talk to threads that do not exist here. */
#define _GNU_SOURCE
#include "../launcher.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Removing takes CAP_SETPCAP, which a change of identity takes away. Who has it neither in a user namespace of his own nor
 * from his caller can't gain what is in the set either: nothing is permitted to him, and no_new_privs keeps it so.
 */
void drop_bounding_set(const struct plan *plan, struct record *record)
{
	for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
		;
	if (errno == EINVAL) /* past the kernel's last capability */
		return;
	if (errno != EPERM || plan->namespaces & CLONE_NEWUSER)
		die(record, "capabilities", "bounding set");
}

static void become(uint32_t uid, uint32_t gid, struct record *record)
{
	if (syscall(SYS_setresgid, gid, gid, gid) < 0)
		die(record, "setresgid", "");
	if (syscall(SYS_setresuid, uid, uid, uid) < 0)
		die(record, "setresuid", "");
}

void set_identity(const struct plan *plan, uint32_t host_uid, struct record *record)
{
	/* Without privileges setgroups is denied and the caller's supplementary groups stay: user_namespaces(7). */
	if (plan->host_uid_count && syscall(SYS_setgroups, 0, NULL) < 0)
		die(record, "setgroups", "");
	if (plan->namespaces & CLONE_NEWUSER)
		become(plan->uid, plan->gid, record);
	else if (plan->host_uid_count)
		become(host_uid, host_uid, record);
}

void drop_privileges(struct record *record)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* EINVAL before 4.3, where there are none */
	if (syscall(SYS_capset, &header, none) < 0)
		die(record, "capabilities", "");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die(record, "no_new_privs", "");
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		die(record, "dumpable", "");
}

/* How soon one that wakes gets the processor: sched_setattr(2), from Linux 6.12 on. Before, who has slept comes first anyway. */
void set_slice(uint64_t nanoseconds)
{
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } own;
	if (syscall(SYS_sched_getattr, 0, &own, sizeof own, 0) < 0 || (own.policy != SCHED_OTHER && own.policy != SCHED_BATCH))
		return;
	own.runtime = nanoseconds;
	syscall(SYS_sched_setattr, 0, &own, 0);
}
