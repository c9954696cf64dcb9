#include "textflag.h"

// Where a program that is linked with -E _cale_start begins: before Go does, whose start would be in vain. It does what
// fromReadOnlyMount does, which is to be read first, and goes on to Go's own start if there is nothing to do.
//
// R12 is the stack as the kernel made it, R13 the descriptor of the program's directory, R15 the program's name in path.

DATA startSelf<>+0(SB)/8, $"/proc/se"
DATA startSelf<>+8(SB)/8, $"lf/exe\x00\x00"
GLOBL startSelf<>(SB), RODATA, $16
DATA startAgain<>+0(SB)/8, $"/proc/se"
DATA startAgain<>+8(SB)/8, $"lf/fd/0/"
GLOBL startAgain<>(SB), NOPTR, $1064
DATA startAttr<>+0(SB)/8, $1 // MOUNT_ATTR_RDONLY
GLOBL startAttr<>(SB), NOPTR, $32
GLOBL startPath<>(SB), NOPTR, $1024
GLOBL startOne<>(SB), NOPTR, $256
GLOBL startTwo<>(SB), NOPTR, $256

TEXT _cale_start(SB),NOSPLIT|NOFRAME,$0
	MOVQ SP, R12
	MOVQ (R12), CX   // how many arguments
	LEAQ 8(R12), BX  // the first one
argument:
	DECQ CX
	JLE  go
	ADDQ $8, BX
	MOVQ (BX), AX
	MOVL (AX), DX
	CMPL DX, $0x006e7572 // run
	JEQ  named
	CMPL DX, $0x63657865 // exec
	JNE  create
	CMPB 4(AX), $0
	JEQ  named
create:
	CMPL DX, $0x61657263 // crea
	JNE  argument
	CMPW 4(AX), $0x6574  // te
	JNE  argument
	CMPB 6(AX), $0
	JNE  argument

named:
	MOVQ $439, AX // faccessat2: may it be written to?
	MOVQ $-100, DI
	LEAQ startSelf<>(SB), SI
	MOVQ $2, DX
	MOVQ $0x200, R10
	SYSCALL
	TESTQ AX, AX
	JNE  go

	MOVQ $267, AX // readlinkat
	MOVQ $-100, DI
	LEAQ startSelf<>(SB), SI
	LEAQ startPath<>(SB), DX
	MOVQ $1000, R10
	SYSCALL
	CMPQ AX, $0
	JLE  go
	CMPQ AX, $1000
	JGE  go
	LEAQ startPath<>(SB), R15
	CMPB (R15), $'/'
	JNE  go
	ADDQ AX, R15
slash:
	DECQ R15
	CMPB (R15), $'/'
	JNE  slash
	INCQ R15

	MOVB (R15), BX
	MOVB $0, (R15)
	MOVQ $428, AX // open_tree
	MOVQ $-100, DI
	LEAQ startPath<>(SB), SI
	MOVQ $0x80001, DX
	SYSCALL
	MOVB BX, (R15)
	TESTQ AX, AX
	JLT  go
	MOVQ AX, R13
	CMPQ AX, $9 // there is one digit for it
	JGT  close

	MOVQ $442, AX // mount_setattr
	MOVQ R13, DI
	LEAQ startPath<>+1023(SB), SI // ""
	MOVQ $0x1000, DX
	LEAQ startAttr<>(SB), R10
	MOVQ $32, R8
	SYSCALL
	TESTQ AX, AX
	JNE  close

	MOVQ $439, AX // faccessat2: it must be EROFS
	MOVQ R13, DI
	MOVQ R15, SI
	MOVQ $2, DX
	MOVQ $0x200, R10
	SYSCALL
	CMPQ AX, $-30
	JNE  close

	MOVQ $332, AX // statx
	MOVQ R13, DI
	MOVQ R15, SI
	MOVQ $0x100, DX
	MOVQ $0x7ff, R10
	LEAQ startOne<>(SB), R8
	SYSCALL
	TESTQ AX, AX
	JNE  close
	MOVQ $332, AX
	MOVQ $-100, DI
	LEAQ startSelf<>(SB), SI
	XORQ DX, DX
	MOVQ $0x7ff, R10
	LEAQ startTwo<>(SB), R8
	SYSCALL
	TESTQ AX, AX
	JNE  close
	MOVWLZX startOne<>+28(SB), AX // stx_mode
	ANDL $0xf000, AX
	CMPL AX, $0x8000
	JNE  close
	MOVQ startOne<>+32(SB), AX // stx_ino
	CMPQ AX, startTwo<>+32(SB)
	JNE  close
	MOVQ startOne<>+136(SB), AX // stx_dev_major and stx_dev_minor
	CMPQ AX, startTwo<>+136(SB)
	JNE  close

	MOVQ R13, AX
	ADDQ $'0', AX
	MOVB AX, startAgain<>+14(SB)
	LEAQ startAgain<>+16(SB), DI
copy:
	MOVB (R15), AX
	MOVB AX, (DI)
	INCQ R15
	INCQ DI
	TESTB AX, AX
	JNE  copy
	MOVQ $59, AX // execve
	LEAQ startAgain<>(SB), DI
	LEAQ 8(R12), SI
	MOVQ (R12), DX
	LEAQ 16(R12)(DX*8), DX
	SYSCALL

close:
	MOVQ $3, AX // close
	MOVQ R13, DI
	SYSCALL
go:
	MOVQ R12, SP
	JMP  _rt0_amd64_linux(SB)
