#include "textflag.h"

// func getrlimit(lim *[2]uint64) (errno uintptr)
TEXT ·getrlimit(SB),NOSPLIT,$0-16
	MOVD $261, R8 // prlimit64
	MOVD $0, R0   // this process
	MOVD $7, R1   // RLIMIT_NOFILE
	MOVD $0, R2
	MOVD lim+0(FP), R3
	SVC
	MOVD R0, errno+8(FP)
	RET
