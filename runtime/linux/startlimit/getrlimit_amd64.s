#include "textflag.h"

// func getrlimit(lim *[2]uint64) (errno uintptr)
TEXT ·getrlimit(SB),NOSPLIT,$0-16
	MOVQ $302, AX // prlimit64
	MOVQ $0, DI   // this process
	MOVQ $7, SI   // RLIMIT_NOFILE
	MOVQ $0, DX
	MOVQ lim+0(FP), R10
	SYSCALL
	MOVQ AX, errno+8(FP)
	RET
