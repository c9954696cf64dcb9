package rawcall

// Numbers of system calls: asm/unistd.h.
const (
	Close        = 3
	Execve       = 59
	Readlinkat   = 267
	Prlimit64    = 302
	Statx        = 332
	OpenTree     = 428
	Faccessat2   = 439
	MountSetattr = 442
)
