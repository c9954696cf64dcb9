package runtime

import (
	"errors"
	"fmt"
	"strings"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// Names of the steps that find and run the program; commandError tells by them what went wrong.
const (
	stepLookup = "look up the command"
	stepIsDir  = "check that the command is a file"
	stepExec   = "execute the command"
)

// defaultPath is used when the environment has no PATH at all.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// emitLookup adds the steps that find a command as the container's user in the container's root, and returns the
// register with the address of its name. The kernel decides, in the child, with the identity the program will have.
func emitLookup(p *launch.Program, command string, env []string) launch.Reg {
	found := p.Reg()
	p.Step(stepLookup)
	if command == "" {
		p.Error(unix.ENOENT)
		return found
	}
	if strings.Contains(command, "/") {
		name := p.Str(command)
		p.Set(found, name)
		p.Call(unix.SYS_FACCESSAT2, atCwd, name, launch.N(unix.X_OK), launch.N(unix.AT_EACCESS))
		p.Step(stepIsDir)
		file := p.Label()
		p.Call(unix.SYS_FACCESSAT, atCwd, p.Str(command+"/."), launch.N(unix.F_OK)).AcceptAny().Else(file)
		p.Error(unix.EISDIR)
		p.Bind(file)
		return found
	}
	search, ok := lookupEnv(env, "PATH")
	if !ok {
		search = defaultPath
	}
	done := p.Label()
	for _, dir := range strings.Split(search, ":") {
		if !strings.HasPrefix(dir, "/") {
			continue // a program in the working directory is never meant
		}
		next := p.Label()
		name := p.Str(strings.TrimSuffix(dir, "/") + "/" + command)
		p.Set(found, name)
		p.Call(unix.SYS_FACCESSAT2, atCwd, name, launch.N(unix.X_OK), launch.N(unix.AT_EACCESS)).AcceptAny().Else(next)
		p.Call(unix.SYS_FACCESSAT, atCwd, p.Str(strings.TrimSuffix(dir, "/")+"/"+command+"/."), launch.N(unix.F_OK)).AcceptAny().Else(done)
		p.Bind(next)
	}
	p.Error(unix.ENOENT)
	p.Bind(done)
	return found
}

// lookupEnv finds a variable; the last one counts.
func lookupEnv(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], key+"="); ok {
			return v, true
		}
	}
	return "", false
}

// commandErr is an error with a class and runc's words.
type commandErr struct {
	class error
	text  string
	errno error
}

func (e *commandErr) Error() string   { return e.text }
func (e *commandErr) Unwrap() []error { return []error{e.class, e.errno} }

// commandError gives a failed program its class, if it failed for the command's sake.
func commandError(err error, command string) error {
	var le *launch.Error
	if !errors.As(err, &le) {
		return err
	}
	e := &commandErr{class: ErrCommandNotExecutable, errno: le.Errno}
	switch le.Step {
	case stepLookup, stepIsDir:
		if le.Errno == unix.ENOENT || le.Errno == unix.ENOTDIR {
			e.class = ErrCommandNotFound
		}
		switch {
		case le.Errno == unix.ENOENT && !strings.Contains(command, "/"):
			e.text = fmt.Sprintf("exec: %q: executable file not found in $PATH", command)
		case e.class == ErrCommandNotFound:
			e.text = fmt.Sprintf("exec: %q: stat %s: %v", command, command, le.Errno)
		default:
			e.text = fmt.Sprintf("exec: %q: %v", command, le.Errno)
		}
	case stepExec:
		if command == "" { // which nobody has looked for
			e.class, e.text = ErrCommandNotFound, `exec: "": executable file not found in $PATH`
			break
		}
		if le.Errno == unix.ENOENT {
			e.class = ErrCommandNotFound // its interpreter, since the file itself was there
		}
		e.text = fmt.Sprintf("exec %s: %v", command, le.Errno)
	default:
		return err
	}
	return e
}

// initError gives an error the class ErrInit. Its text is the error's.
type initError struct{ err error }

func (e initError) Error() string        { return e.err.Error() }
func (e initError) Unwrap() error        { return e.err }
func (e initError) Is(target error) bool { return target == ErrInit }
