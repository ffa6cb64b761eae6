//go:build linux && cgo

// The init of a process namespace: process 1 of it, which reaps whom nobody else does and forwards signals to the program. It
// takes over before the Go runtime starts, in a single thread, so that it can give up everything for good: whoever gets hold of
// it from within a container finds an empty root, no file of the host and no capability.
//
// It is told by the environment whose user and group it takes, those of the program, so that whoever may signal that may signal it;
// and where to mount its empty root. It says on its standard output that it is ready, reads from its standard input the program's
// process id as the namespace has it, and ends when that is closed: the kernel then ends the namespace.

#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	const char *why = strerror(errno);

	if (write(2, what, strlen(what)) < 0 || write(2, ": ", 2) < 0 || write(2, why, strlen(why)) < 0 || write(2, "\n", 1) < 0)
		_exit(3);
	_exit(2);
}

static void close_others(void)
{
	int fd;

#ifdef SYS_close_range
	if (!syscall(SYS_close_range, 3, ~0U, 0))
		return;
#endif
	for (fd = 3; fd < 1024; fd++) /* before Linux 5.9 */
		close(fd);
}

static void give_up_everything(uid_t user, gid_t group, const char *place)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("make mounts private");
	if (mount("none", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k"))
		fail("mount an empty root");
	if (chdir(place) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		fail("change the root");
	close_others();
	if (setgroups(0, NULL) || setresgid(group, group, group) || setresuid(user, user, user))
		fail("change the user");
	if (syscall(SYS_capset, &head, none)) /* root keeps them until here */
		fail("drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		fail("renounce privileges");
}

__attribute__((constructor)) static void neargate_init(void)
{
	const char *told = getenv("_NEARGATE_INIT"); /* USER:GROUP:FOLDER */
	unsigned long user, group;
	char *rest;
	struct signalfd_siginfo info;
	struct pollfd fds[2];
	int32_t pid, program = 0;
	sigset_t all;

	if (!told)
		return;
	user = strtoul(told, &rest, 10);
	group = *rest == ':' ? strtoul(rest + 1, &rest, 10) : 0;
	if (*rest != ':')
		fail("read what it is told");
	sigfillset(&all);
	if (sigprocmask(SIG_BLOCK, &all, NULL))
		fail("block signals");
	give_up_everything(user, group, rest + 1);
	fds[0].fd = 0;
	fds[1].fd = signalfd(-1, &all, SFD_CLOEXEC);
	fds[0].events = fds[1].events = POLLIN;
	if (fds[1].fd < 0)
		fail("signalfd");
	close(2);
	if (write(1, "r", 1) != 1)
		_exit(2); /* who would hear of it is gone */
	close(1);
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents & POLLIN && read(fds[1].fd, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo == SIGCHLD)
				while (waitpid(-1, NULL, WNOHANG) > 0)
					;
			else if (program > 0)
				kill(program, info.ssi_signo);
		}
		if (fds[0].revents) {
			if (read(0, &pid, sizeof pid) != sizeof pid)
				_exit(0);
			program = pid;
		}
	}
}
