/*
 * Memory that is the launcher's alone. A clone makes every page of ours that may be written one that is copied when either side writes
 * to it (fork(2)): for the launcher that is a page fault for each page that it needs for the next run, and with its threads on other
 * processors an interrupt there. What no child needs is therefore not given to any (madvise(2), MADV_DONTFORK).
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK = 64 << 10 };

/* What lies wholly in it: pages are larger than 4 KiB elsewhere. */
static void advise(const void *begin, const void *end, int advice)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)begin + page - 1) & -page, to = (uintptr_t)end & -page;
	if (from < to)
		madvise((void *)from, to - from, advice); /* where it fails children have copies: that is all */
}

void keep_from_children(void *begin, size_t size)
{
	advise(begin, (char *)begin + size, MADV_DONTFORK);
}

void let_go(const void *begin, const void *end)
{
	advise(begin, end, MADV_DONTNEED);
}

/* No chunk is ever given back to the kernel. */
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
