//go:build linux && cgo && seccomp

// What libseccomp makes of a filter's rules is kept, for it takes libseccomp longer than all else that an init does. libcontainer goes on
// deciding when which filter is loaded, and how: two functions of libseccomp stand behind these here (-Wl,--wrap).
//
// In a process that was given a file (neargate_filter_cache), rules are written down instead of being added. When the program is asked for,
// all that it follows from is compared, byte for byte, with what the file begins with: the version of libseccomp, the
// filter's attributes and architectures, and every rule. If it is the same, the rest of the file is the program and, last, a sum of all. Else the
// rules are added as they were written down, and the file, if it is empty, gets both. So a file that is not there, old or torn costs time, and
// nothing else.

#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int __real_seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall, unsigned int count, const struct scmp_arg_cmp *args);
int __real_seccomp_export_bpf(const scmp_filter_ctx ctx, int fd);

struct rule {
	uint32_t action, count;
	int32_t syscall, zero;
	struct scmp_arg_cmp args[6];
};

static int cache = -1;
static scmp_filter_ctx of; /* the one filter whose rules are written down */
static struct rule *rules;
static size_t count, room;

void neargate_filter_cache(int fd)
{
	cache = fd;
}

int __wrap_seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall, unsigned int n, const struct scmp_arg_cmp *args)
{
	struct rule *more;
	unsigned int i;

	if (cache < 0 || n > 6 || (of && of != ctx))
		return __real_seccomp_rule_add_array(ctx, action, syscall, n, args);
	if (count == room) {
		more = realloc(rules, (room + 256) * sizeof *rules);
		if (!more)
			return -ENOMEM;
		rules = more;
		room += 256;
	}
	of = ctx;
	memset(&rules[count], 0, sizeof *rules); /* what is between the members is compared too */
	rules[count].action = action;
	rules[count].syscall = syscall;
	rules[count].count = n;
	for (i = 0; i < n; i++) {
		rules[count].args[i].arg = args[i].arg;
		rules[count].args[i].op = args[i].op;
		rules[count].args[i].datum_a = args[i].datum_a;
		rules[count].args[i].datum_b = args[i].datum_b;
	}
	count++;
	return 0;
}

/* All else that the program follows from, by what may be asked of the library. */
static size_t circumstances(scmp_filter_ctx ctx, uint32_t *list)
{
	static const enum scmp_filter_attr attributes[] = { SCMP_FLTATR_ACT_DEFAULT, SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_NNP, SCMP_FLTATR_CTL_TSYNC,
		SCMP_FLTATR_API_TSKIP, SCMP_FLTATR_CTL_LOG, SCMP_FLTATR_CTL_SSB, SCMP_FLTATR_CTL_OPTIMIZE, SCMP_FLTATR_API_SYSRAWRC };
	static const uint32_t architectures[] = { SCMP_ARCH_X86, SCMP_ARCH_X86_64, SCMP_ARCH_X32, SCMP_ARCH_ARM, SCMP_ARCH_AARCH64, SCMP_ARCH_MIPS, SCMP_ARCH_MIPS64,
		SCMP_ARCH_MIPS64N32, SCMP_ARCH_MIPSEL, SCMP_ARCH_MIPSEL64, SCMP_ARCH_MIPSEL64N32, SCMP_ARCH_PPC, SCMP_ARCH_PPC64, SCMP_ARCH_PPC64LE, SCMP_ARCH_S390,
		SCMP_ARCH_S390X, SCMP_ARCH_RISCV64 };
	const struct scmp_version *v = seccomp_version();
	size_t i, n = 0;

	list[n++] = v->major;
	list[n++] = v->minor;
	list[n++] = v->micro;
	list[n++] = seccomp_api_get();
	list[n++] = seccomp_arch_native();
	for (i = 0; i < sizeof attributes / sizeof *attributes; i++) {
		list[n] = 0;
		seccomp_attr_get(ctx, attributes[i], &list[n++]);
	}
	for (i = 0; i < sizeof architectures / sizeof *architectures; i++)
		list[n++] = !seccomp_arch_exist(ctx, architectures[i]);
	list[n++] = count;
	return n * sizeof *list;
}

static int write_all(int fd, const char *from, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, from, length);
		if (n <= 0)
			return -1;
		from += n;
		length -= n;
	}
	return 0;
}

/* FNV-1a: against what crashed while it wrote, not against enemies. Only root reaches the file. */
static uint64_t sum(const char *from, size_t length)
{
	uint64_t s = 14695981039346656037u;

	while (length-- > 0)
		s = (s ^ (unsigned char)*from++) * 1099511628211u;
	return s;
}

/* The whole file; NULL: there is nothing in it, or not all. length is without the sum at its end. */
static char *read_file(size_t *length)
{
	struct stat st;
	uint64_t end;
	char *text;

	if (fstat(cache, &st) || st.st_size <= (off_t)sizeof end || st.st_size > 1 << 20 || !(text = malloc(st.st_size)))
		return NULL;
	*length = st.st_size - sizeof end;
	if (pread(cache, text, st.st_size, 0) == st.st_size) {
		memcpy(&end, text + *length, sizeof end);
		if (end == sum(text, *length))
			return text;
	}
	free(text);
	return NULL;
}

/* Fills the file, if it is empty. Without its sum it counts as if it were. The container's own limit of files' sizes holds already: where it is
 * too small, to write would be death. */
static void write_file(scmp_filter_ctx ctx, const uint32_t *head, size_t head_size)
{
	struct rlimit limit;
	struct stat st;
	uint64_t end;
	char *text;

	if (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur < 1 << 20)
		return;
	if (fstat(cache, &st) || !S_ISREG(st.st_mode) || st.st_size || write_all(cache, (const char *)head, head_size) ||
	    write_all(cache, (const char *)rules, count * sizeof *rules) || __real_seccomp_export_bpf(ctx, cache) || fstat(cache, &st) ||
	    !(text = malloc(st.st_size)))
		return;
	if (pread(cache, text, st.st_size, 0) == st.st_size) {
		end = sum(text, st.st_size);
		write_all(cache, (char *)&end, sizeof end);
	}
	free(text);
}

/* Adds the rules that were written down, as if they had been when they came. */
static int add_rules(scmp_filter_ctx ctx)
{
	size_t i;
	int failed;

	for (i = 0; i < count; i++) {
		failed = __real_seccomp_rule_add_array(ctx, rules[i].action, rules[i].syscall, rules[i].count, rules[i].count ? rules[i].args : NULL);
		if (failed)
			return failed;
	}
	return 0;
}

int __wrap_seccomp_export_bpf(const scmp_filter_ctx ctx, int fd)
{
	uint32_t head[64];
	size_t head_size, rules_size, length;
	char *kept;
	int result;

	if (cache < 0 || of != ctx)
		return __real_seccomp_export_bpf(ctx, fd);
	head_size = circumstances(ctx, head);
	rules_size = count * sizeof *rules;
	kept = read_file(&length);
	if (kept && length > head_size + rules_size && !memcmp(kept, head, head_size) && !memcmp(kept + head_size, rules, rules_size)) {
		result = write_all(fd, kept + head_size + rules_size, length - head_size - rules_size) ? -EIO : 0;
	} else {
		result = add_rules(ctx);
		if (!result)
			result = __real_seccomp_export_bpf(ctx, fd);
		if (!result)
			write_file(ctx, head, head_size);
	}
	free(kept);
	cache = -1; /* what is done with this filter now, and with others, is libseccomp's */
	return result;
}
