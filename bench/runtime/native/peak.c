// Runs a command and prints its peak memory in KiB to the descriptor 3. A Go program that starts another shares its
// own memory with it up to the execve, and the kernel would count that.
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
	int pid = fork(), status;
	struct rusage usage;
	if (pid == 0) {
		close(3);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return 1;
	dprintf(3, "%ld\n", usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
