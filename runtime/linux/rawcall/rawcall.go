// Package rawcall makes system calls before package syscall is initialised.
//
// It imports nothing, and neither may those who use it import more than this one: packages are initialised in the order
// of their paths as soon as all that they import is, and "cale" comes before "errors" and whatever else the rest needs.
package rawcall

import "unsafe"

// Syscall makes a system call; a result from -4095 to -1 is an error's number, negated. What the arguments point to must
// not move meanwhile: let it be a variable that does not grow the stack when it is passed.
//
//go:noescape
func Syscall(number, a, b, c, d, e, f uintptr) (result int)

// auxv is the kernel's auxiliary vector, where the kernel laid it out.
//
//go:linkname auxv runtime.getAuxv
func auxv() []uintptr

// word is the i-th word from p on.
func word(p unsafe.Pointer, i int) *uintptr {
	return (*uintptr)(unsafe.Add(p, i*int(unsafe.Sizeof(uintptr(0)))))
}

// Arguments are the program's arguments and its environment, each of C strings with a nil behind the last, as the kernel
// laid them out; n is how many arguments there are. They are nil if they can't be found.
func Arguments() (n int, arguments, environment unsafe.Pointer) {
	vector := auxv()
	if len(vector) < 2 || !onStack(vector) {
		return 0, nil, nil
	}
	// Below the vector lie a zero, the environment, a zero, the arguments and their number.
	at := unsafe.Pointer(&vector[0])
	i := -2
	for *word(at, i) != 0 {
		i--
	}
	environment = unsafe.Pointer(word(at, i+1))
	for i--; *word(at, i) != uintptr(n); i-- {
		n++
	}
	return n, unsafe.Pointer(word(at, i+1)), environment
}

// onStack reports whether the vector is the one that the kernel put at the stack's begin, and no copy: what it points
// to lies right above it.
func onStack(vector []uintptr) bool {
	const random, near = 25, 8 << 20 // AT_RANDOM; all arguments together are smaller
	begin := uintptr(unsafe.Pointer(&vector[0]))
	for i := 0; i+1 < len(vector); i += 2 {
		if vector[i] == random {
			return vector[i+1] > begin && vector[i+1]-begin < near
		}
	}
	return false
}
