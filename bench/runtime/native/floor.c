// The floor: what the kernel alone takes for a container like ../config.go's, without any runtime's work around it. The
// arguments are the root, then the control groups' folders; the system calls are those that any runtime must make. With
// STEPS in the environment it prints what each step took, in microseconds.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	"/proc/sched_debug", "/proc/scsi", "/sys/firmware"};
static const char *readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const int minors[] = {3, 5, 7, 8, 9, 0};

static void check(int failed, const char *what) {
	if (failed)
		err(1, "%s", what);
}

static struct timespec last;
static int steps;

static void step(const char *what) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (steps && what)
		dprintf(1, "%s: %ld\n", what, (now.tv_sec - last.tv_sec) * 1000000 + (now.tv_nsec - last.tv_nsec) / 1000);
	last = now;
}

static void at(const char *root, const char *name, char out[4096]) { snprintf(out, 4096, "%s%s", root, name); }

static void fs(const char *root, const char *type, const char *to, unsigned long flags, const char *data) {
	char path[4096];
	at(root, to, path);
	mkdir(path, 0755);
	check(mount(type, path, type, flags, data) < 0, to);
}

static void child(const char *root, int groups, char **dirs) {
	char path[4096];
	step("namespaces made, first process");
	for (int i = 0; i < groups; i++) {
		snprintf(path, sizeof path, "%s/cgroup.procs", dirs[i]);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		check(fd < 0 || write(fd, "0", 1) != 1, path);
		close(fd);
	}
	check(unshare(CLONE_NEWCGROUP) < 0, "cgroup namespace");
	step("control groups joined");
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0, "private");
	check(mount(root, root, NULL, MS_BIND | MS_REC, NULL) < 0, "bind the root");
	fs(root, "proc", "/proc", 0, NULL);
	fs(root, "tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	fs(root, "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
	fs(root, "tmpfs", "/dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	fs(root, "mqueue", "/dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	fs(root, "sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL);
	step("mounts");
	for (int i = 0; i < 6; i++) {
		snprintf(path, sizeof path, "%s/dev/%s", root, nodes[i]);
		check(mknod(path, S_IFCHR | 0666, makedev(i == 5 ? 5 : 1, minors[i])) < 0, path);
	}
	static const char *links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"}};
	for (int i = 0; i < 6; i++) {
		snprintf(path, sizeof path, "%s/dev/%s", root, links[i][1]);
		check(symlink(links[i][0], path) < 0, path);
	}
	step("devices");
	check(chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0, "pivot");
	step("root changed");
	for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
			mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		struct stat st;
		if (stat(masked[i], &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
			mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0");
		else
			mount("/dev/null", masked[i], NULL, MS_BIND, NULL);
	}
	check(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0, "read-only root");
	step("masks, read-only paths");
	check(sethostname("floor", 5) < 0, "hostname");
	for (int cap = 8; cap <= 40; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	char *argv[] = {"/true", NULL}, *env[] = {"PATH=/bin", NULL};
	execve("/true", argv, env);
	err(1, "execve");
}

int main(int argc, char **argv) {
	steps = getenv("STEPS") != NULL;
	step(NULL);
	for (int i = 2; i < argc; i++)
		check(mkdir(argv[i], 0755) < 0, argv[i]);
	step("control groups made");
	struct clone_args args = {.exit_signal = SIGCHLD,
		.flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS};
	int pid = syscall(SYS_clone3, &args, sizeof args), status;
	check(pid < 0, "clone3");
	if (pid == 0)
		child(argv[1], argc - 2, argv + 2);
	check(waitpid(pid, &status, 0) < 0, "wait");
	step("all in the container to its end");
	for (int i = 2; i < argc; i++)
		check(rmdir(argv[i]) < 0, argv[i]);
	step("control groups removed");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
