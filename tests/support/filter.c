/* Does sharing answers change what the system call filter decides? Includes the filter's own source; prints what it compared. */
#include "linux/seccomp.c"

#include <stdio.h>

void record_failure(struct record *record, const char *step, const char *object, int error)
{
	(void)record, (void)step, (void)object, (void)error;
}

noreturn void die(struct record *record, const char *step, const char *object)
{
	record_failure(record, step, object, 0);
	_exit(1);
}

/* As the kernel runs it: Documentation/networking/filter.rst. */
static unsigned decision(const struct program *program, const struct seccomp_data *call)
{
	unsigned value = 0;
	for (unsigned i = 0; i < program->size; i++) {
		const struct sock_filter *at = &program->code[i];
		switch (at->code) {
		case BPF_LD | BPF_W | BPF_ABS: value = *(const unsigned *)((const char *)call + at->k); break;
		case BPF_ALU | BPF_AND: value &= at->k; break;
		case BPF_JMP | BPF_JA: i += at->k; break;
		case BPF_JMP | BPF_JEQ: i += value == at->k ? at->jt : at->jf; break;
		case BPF_JMP | BPF_JGE: i += value >= at->k ? at->jt : at->jf; break;
		case BPF_JMP | BPF_JSET: i += value & at->k ? at->jt : at->jf; break;
		case BPF_RET: return at->k;
		default: printf("an instruction that is unknown here: %#x\n", at->code); exit(1);
		}
	}
	printf("the filter ends without an answer\n");
	exit(1);
}

static void choose_arguments(struct seccomp_data *call)
{
	static const unsigned values[] = {0, 1, 2, 3, 4, 5, 7, 10, 0x10, 0x21, 0x22, 0100, 02000, 04000, 06777, 0x5401, 0x5412, 0x541c,
		0x5423, 0x802C542A, 1024, 1031, 0x20000, 0x100000, 0x410000, 0x10000000, 0x7c020000, 0xffffffff};
	for (size_t i = 0; i < sizeof call->args / sizeof *call->args; i++)
		call->args[i] = values[(unsigned)rand() % (sizeof values / sizeof *values)] | (uint64_t)(rand() % 5 == 0) << 33;
}

int main(void)
{
	static struct program plain, shared;
	unsigned long compared = 0, different = 0;
	unsigned most = 0;
	for (unsigned options = 0; options < FILTER_VARIANTS; options++) {
		memset(&plain, 0, sizeof plain);
		plain.options = options;
		compile(&plain);
		shared = plain;
		share_answers(&shared);
		most = shared.size > most ? shared.size : most;
		for (int number = -1; number < MAX_NUMBER + 10; number++)
			for (int round = 0; round < 8; round++) {
				struct seccomp_data call = {.nr = number, .arch = round == 0 ? 0x40000003 : NATIVE_ARCH};
				call.nr |= round == 1 ? 0x40000000 : 0;
				choose_arguments(&call);
				compared++;
				different += decision(&plain, &call) != decision(&shared, &call);
			}
	}
	printf("%lu %lu %u %u\n", compared, different, plain.size, most);
	return 0;
}
