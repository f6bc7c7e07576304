/* What who holds a handle to a run may ask of it while it goes on; each message is one word, and one number at the most. */
#define _GNU_SOURCE
#include "serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What the host calls the command: who holds a handle reads of it in /proc. 0: it has ended already. */
static pid_t command_on_host(const struct run *run)
{
	pid_t inside = server.records[run->slot].command;
	return run->reach == REACH_NAMESPACE ? child_on_host(run->reaper, inside) : inside;
}

/* The command has been executed, by which a handle's maker knows that it could be. */
void announce(struct run *run)
{
	struct message *message = new_message();
	run->announced = true;
	add_word(message, "began");
	add_number(message, "pid", command_on_host(run));
	tell(run->channel->socket, message);
}

static void tell_usage(struct run *run)
{
	struct message *message = new_message();
	struct sample found;
	int64_t disk_read = -1, disk_written = -1, memory = run->watch.result.memory ? run->watch.result.memory : -1;
	look_once(run->reaper, &found);
	int64_t cpu = run->cpu_seen > found.cpu ? run->cpu_seen : found.cpu;
	if (run->cage)
		cage_now(run->cage, &cpu, &memory, &disk_read, &disk_written);
	add_word(message, "usage");
	add_number(message, "number", run->question);
	add_number(message, "wall", now() - server.records[run->slot].started);
	add_number(message, "cpu", cpu);
	add_number(message, "memory", memory);
	add_number(message, "tasks", found.tasks);
	add_number(message, "disk_read", disk_read);
	add_number(message, "disk_written", disk_written);
	tell(run->channel->socket, message);
	run->question = 0;
}

/* Where memory is sampled it is looked at now: by a look that has not begun yet. */
static void ask_usage(struct run *run, long question)
{
	run->question = question;
	if (run->cage || !run->watch.limit) {
		tell_usage(run);
		return;
	}
	run->looks = run->sampling ? 2 : 1;
	run->next_look = 0;
}

/* A sample is there. */
void answer(struct run *run)
{
	if (!run->question)
		return;
	if (--run->looks > 0) {
		run->next_look = 0;
		return;
	}
	tell_usage(run);
}

static void send_signal(struct run *run, long number)
{
	uint64_t bit = UINT64_C(1) << (number - 1);
	run->sent |= bit;
	__atomic_or_fetch(&server.records[run->slot].signals, bit, __ATOMIC_ACQ_REL);
	give_order(run, run->stopped ? ORDER_STOP : ORDER_GO);
}

/* A reaper that is no pid 1 is not to be frozen: with the launcher dead it ends the run (enter.c). */
static void pause_run(struct run *run, bool pause)
{
	if (run->cage && run->reach == REACH_NAMESPACE && cage_freeze(run->cage, pause))
		return;
	run->paused = pause;
	hold(run, pause);
	if (pause)
		run->next_look = 0;
}

/* What a timeout has begun to end stays the timeout's. */
static void end_by_caller(struct run *run)
{
	if (!run->terminated)
		run->cancelled = true;
	end_gently(run);
}

static long number_after(const char *text, const char *word)
{
	size_t size = strlen(word);
	return strncmp(text, word, size) ? 0 : strtol(text + size, NULL, 10);
}

/* Whether it was such a message; if not, the run is to end. */
bool heed(struct run *run, const char *text)
{
	long number = number_after(text, "signal "), question = number_after(text, "usage ");
	if (run->killed)
		return false;
	if (number >= 1 && number <= 64)
		send_signal(run, number);
	else if (!strcmp(text, "pause") || !strcmp(text, "resume"))
		pause_run(run, *text == 'p');
	else if (question > 0)
		ask_usage(run, question);
	else if (!strcmp(text, "end"))
		end_by_caller(run);
	else
		return false;
	return true;
}
