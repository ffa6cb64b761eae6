//go:build linux && cgo

// The program of a container that was made ahead: it waits in the program's place, as the program's user and confined as it will be, is
// told arguments and environment, and becomes the program. It takes over before the Go runtime starts, so that what waits takes next
// to no memory. It says that it is there with a byte. What it is told comes through a socket, as two numbers, of arguments and of variables, the number of bytes that follow,
// and so many bytes of strings. It answers with another byte that it has all; the socket is closed by the program taking its place. With a
// third it says that it could not, and ends: then the container is made again in the usual way, which finds the words for what is wrong.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_FILE 3 /* and the socket follows it; neither is the program's business */

static int read_all(int fd, void *to, size_t length)
{
	char *at = to;

	while (length > 0) {
		ssize_t n = read(fd, at, length);
		if (n <= 0)
			return -1;
		at += n;
		length -= n;
	}
	return 0;
}

static char **strings(char **at, char *end, uint32_t count)
{
	char **list = calloc((size_t)count + 1, sizeof *list);
	uint32_t i;

	for (i = 0; list && i < count; i++) {
		if (*at >= end)
			return NULL;
		list[i] = *at;
		*at += strlen(*at) + 1;
	}
	return list;
}

/* As libcontainer finds it: the first in PATH that is a file and may be executed. What is relative is left to libcontainer to refuse. */
static void become(char **args, char **env)
{
	char place[4096];
	const char *path = "";
	struct stat st;
	char **e;

	if (strchr(args[0], '/')) {
		execve(args[0], args, env);
		return;
	}
	for (e = env; *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			path = *e + 5;
	while (*path) {
		size_t length = strcspn(path, ":");
		if (*path != '/' || length + strlen(args[0]) + 2 > sizeof place)
			return;
		memcpy(place, path, length);
		place[length] = '/';
		strcpy(place + length + 1, args[0]);
		if (!stat(place, &st) && !S_ISDIR(st.st_mode) && !access(place, X_OK)) {
			execve(place, args, env);
			return;
		}
		path += length;
		path += *path == ':';
	}
}

__attribute__((constructor)) static void neargate_held(void)
{
	const char *told = getenv("_NEARGATE_HELD"); /* how many files the program is not to have */
	int fd, last;
	uint32_t head[3];
	char *text, *at, **args, **env;

	if (!told)
		return;
	last = FIRST_FILE + atoi(told) - 1;
	for (fd = FIRST_FILE; fd <= last; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) && errno != EBADF) /* the first was libcontainer's init's only */
			_exit(125);
	if (write(last, "h", 1) != 1)
		_exit(125);
	if (read_all(last, head, sizeof head) || head[2] == 0 || head[0] == 0)
		_exit(0); /* not needed any more */
	text = mmap(NULL, head[2], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (text == MAP_FAILED || read_all(last, text, head[2]) || text[head[2] - 1])
		_exit(125);
	at = text;
	args = strings(&at, text + head[2], head[0]);
	env = args ? strings(&at, text + head[2], head[1]) : NULL;
	if (!env || write(last, "r", 1) != 1)
		_exit(125);
	become(args, env);
	if (write(last, "x", 1) != 1)
		_exit(126);
	_exit(125);
}
