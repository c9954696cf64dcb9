package rawcall

// Numbers of system calls: asm/unistd.h.
const (
	Close        = 57
	Execve       = 221
	Readlinkat   = 78
	Prlimit64    = 261
	Statx        = 291
	OpenTree     = 428
	Faccessat2   = 439
	MountSetattr = 442
)
