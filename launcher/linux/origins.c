/*
 * Whether what was mounted is still what lies there: a directory may be replaced by another, a file by a newer one. Mounts that
 * are made on the way or below are told by the table of mounts (serve.c).
 */
#define _GNU_SOURCE
#include "../launcher.h"
#include "kernel.h"

#include <stdlib.h>
#include <sys/stat.h>

struct origin { char *path; dev_t device; ino_t inode; };
struct origins { size_t count; struct origin list[]; };

/* A mount keeps its inode, so that no other one has that number meanwhile. */
static bool is_current(const struct origin *origin)
{
	struct stat status;
	int place = open_strictly(origin->path, O_PATH);
	bool same = place >= 0 && fstat(place, &status) == 0 && status.st_dev == origin->device && status.st_ino == origin->inode;
	if (place >= 0)
		close(place);
	return same;
}

bool are_current(const struct origins *origins)
{
	for (size_t i = 0; i < origins->count; i++)
		if (!is_current(&origins->list[i]))
			return false;
	return true;
}

void free_origins(struct origins *origins)
{
	for (size_t i = 0; origins && i < origins->count; i++)
		free(origins->list[i].path);
	free(origins);
}

/* By the detached mounts themselves, so that nothing else can have come in between. NULL: no memory, or they cannot be looked at. */
struct origins *note_origins(const struct plan *plan, bool shared, const int *trees)
{
	struct origins *origins = calloc(1, sizeof *origins + plan->n_mounts * sizeof *origins->list);
	struct stat status;
	for (size_t i = 0; origins && i < plan->n_mounts; i++) {
		if (plan->mounts[i].shared != shared || plan->mounts[i].kind != MOUNT_BIND)
			continue;
		char *path = strdup(plan->mounts[i].source);
		if (!path || fstat(trees[i], &status) < 0) {
			free(path);
			free_origins(origins);
			return NULL;
		}
		origins->list[origins->count++] = (struct origin){path, status.st_dev, status.st_ino};
	}
	return origins;
}
