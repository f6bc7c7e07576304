/*
 * Memory that is the launcher's alone. A clone makes every page of ours that may be written one that is copied when either side writes
 * to it (fork(2)): for the launcher that is a page fault for each page that it needs for the next run, and with its threads on other
 * processors an interrupt there. What no child needs is therefore not given to any (madvise(2), MADV_DONTFORK).
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <string.h>
#include <sys/mman.h>

enum { CHUNK = 64 << 10 };

/* Whole pages. Where it fails children have copies: that is all. */
void keep_from_children(void *begin, size_t size)
{
	madvise(begin, size, MADV_DONTFORK);
}

static void grow(struct pool *pool)
{
	char *chunk = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (chunk == MAP_FAILED)
		return;
	keep_from_children(chunk, CHUNK);
	for (size_t at = CHUNK - CHUNK % pool->size; at >= pool->size; at -= pool->size)
		give_back(pool, chunk + at - pool->size);
}

/* Zeroed, as by calloc(3). NULL: ENOMEM. */
void *take_from(struct pool *pool)
{
	if (!pool->free)
		grow(pool);
	struct piece *found = pool->free;
	if (!found)
		return NULL;
	pool->free = found->next;
	return memset(found, 0, pool->size);
}

void give_back(struct pool *pool, void *what)
{
	struct piece *piece = what;
	piece->next = pool->free;
	pool->free = piece;
}
