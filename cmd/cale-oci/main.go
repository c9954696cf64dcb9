// Command cale-oci is the low-level container runtime: the OCI runtime specification behind runc's command line.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"cale/runtime/linux"
	_ "cale/runtime/linux/restart" // makes ExecUnwritable's work less
)

// version is set by the build.
var version = "1.0.0-dev"

// app is one run of the program: the global flags and where messages go.
type app struct {
	root    string
	rootSet bool
	log     string
	format  string
	debug   bool
	systemd bool
	// manager is crun's way to say which cgroup driver to use: cgroupfs, systemd or disabled.
	manager string
	logFile io.Writer
}

// command is one subcommand. Its run gets what follows the command's name.
type command struct {
	name  string
	usage string // its arguments
	short string
	run   func(a *app, args []string) error
}

var commands = []command{
	{"checkpoint", "CONTAINER", "save a running container's processes to files", cmdCheckpoint},
	{"create", "CONTAINER", "create a container that waits to be started", unwritable(cmdCreate)},
	{"delete", "CONTAINER", "remove what is left of a container", cmdDelete},
	{"events", "CONTAINER", "show a container's statistics and out-of-memory events", cmdEvents},
	{"exec", "CONTAINER cmd [args...]", "run a process in a container", unwritable(cmdExec)},
	{"features", "", "show what this runtime can do", cmdFeatures},
	{"kill", "CONTAINER [signal]", "send a signal to a container's first process", cmdKill},
	{"list", "", "list containers", cmdList},
	{"pause", "CONTAINER", "freeze a container's processes", cmdPause},
	{"ps", "CONTAINER [ps options]", "show a container's processes", cmdPs},
	{"restore", "CONTAINER", "make a container of what checkpoint has saved", cmdRestore},
	{"resume", "CONTAINER", "thaw a container's processes", cmdResume},
	{"run", "CONTAINER", "create and start a container", unwritable(cmdRun)},
	{"spec", "", "write a configuration to start from, or list the system calls of one", cmdSpec},
	{"start", "CONTAINER", "start a created container", cmdStart},
	{"state", "CONTAINER", "show a container's state", cmdState},
	{"update", "CONTAINER", "change a container's limits", cmdUpdate},
}

// exitError carries an exit status out of a command.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func main() {
	a := &app{}
	os.Exit(a.main(os.Args[1:]))
}

func (a *app) main(args []string) int {
	var help, showVersion bool
	var ignored string
	fs := flags{}
	fs.str(&a.root, "root")
	fs.str(&a.log, "log")
	fs.str(&a.format, "log-format")
	fs.bool(&a.debug, "debug")
	fs.bool(&a.systemd, "systemd-cgroup")
	fs.str(&a.manager, "cgroup-manager")
	fs.str(&ignored, "criu")
	fs.str(&ignored, "rootless")
	fs.bool(&help, "help", "h")
	fs.bool(&showVersion, "version", "v")
	rest, err := fs.parse(args, false)
	if err != nil {
		return a.fatal(err, 1)
	}
	if err := a.openLog(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch a.manager {
	case "", "cgroupfs", "disabled":
	case "systemd":
		a.systemd = true
	default:
		return a.fatal(fmt.Errorf("invalid cgroup-manager: %s", a.manager), 1)
	}
	switch {
	case showVersion:
		// The last line is as crun has it, by which callers tell what they may ask for.
		fmt.Printf("%s version %s\ncommit: %s\nspec: %s\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF%s\n",
			filepath.Base(os.Args[0]), version, revision(), specVersion, criu())
		return 0
	case help || len(rest) == 0 || rest[0] == "help":
		usage()
		return 0
	}
	a.rootSet = a.root != ""
	if a.root == "" {
		a.root = defaultRoot()
	}
	if a.root, err = filepath.Abs(a.root); err != nil {
		return a.fatal(err, 1)
	}
	for _, c := range commands {
		if c.name != rest[0] {
			continue
		}
		err := c.run(a, rest[1:])
		var exit *exitError
		var help *helpError
		switch {
		case err == nil:
			return 0
		case errors.As(err, &help):
			c.help(help.options)
			return 0
		case errors.As(err, &exit) && exit.err == nil:
			return exit.code
		case exit != nil:
			return a.fatal(exit.err, exit.code)
		}
		return a.fatal(err, 1)
	}
	return a.fatal(fmt.Errorf("No help topic for '%s'", rest[0]), 3)
}

// unwritable is for commands that have a process among the container's, which must not reach this program's file.
func unwritable(run func(*app, []string) error) func(*app, []string) error {
	return func(a *app, args []string) error {
		if err := linux.ExecUnwritable(); err != nil {
			return err
		}
		// Collecting the garbage of reading a configuration would cost more than keeping it. The others make next to
		// none, and saying so would cost them more.
		debug.SetGCPercent(-1)
		debug.SetMemoryLimit(256 << 20)
		return run(a, args)
	}
}

// criu is the mark that says that checkpoints work, if there is what makes them.
func criu() string {
	if _, err := exec.LookPath("criu"); err != nil {
		return ""
	}
	return " +CRIU"
}

// commit is set by the build.
var commit string

// revision is what the program was built from, if the build knew.
func revision() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// defaultRoot is where states are kept.
func defaultRoot() string {
	// Root of a user namespace is a user who has become it, unless it says that it is root.
	if os.Geteuid() != 0 || os.Getenv("XDG_RUNTIME_DIR") != "" && os.Getenv("USER") != "root" && linux.InUserNamespace() {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "cale-oci")
		}
	}
	return "/run/cale-oci"
}

// help begins as runc's and has the usage in crun's words.
func (c command) help(options []string) {
	program := filepath.Base(os.Args[0])
	fmt.Printf("NAME:\n   %s %s - %s\n\n%s\n", program, c.name, c.short,
		strings.TrimSpace(fmt.Sprintf("Usage: %s [OPTION...] %s %s", program, c.name, c.usage)))
	if len(options) > 0 {
		fmt.Printf("\nOPTIONS:\n   %s\n", strings.Join(options, "\n   "))
	}
}

func usage() {
	fmt.Printf("NAME:\n   %[1]s - Open Container Initiative runtime\n\n"+
		"USAGE:\n   %[1]s [global options] command [options] [arguments]\n\nCOMMANDS:\n", filepath.Base(os.Args[0]))
	for _, c := range commands {
		fmt.Printf("   %-10s %s\n", c.name, c.short)
	}
	fmt.Print("\nGLOBAL OPTIONS:\n   --root value        directory of the containers' states\n" +
		"   --log value         file for messages (default: stderr)\n   --log-format value  text or json\n" +
		"   --debug             more messages\n   --systemd-cgroup    use systemd's cgroup driver\n" +
		"   --cgroup-manager    cgroupfs, systemd or disabled (no cgroup), as crun has it\n" +
		"   --version, -v       print the version\n")
}

func (a *app) openLog() error {
	switch a.format {
	case "", "text", "json":
	default:
		return fmt.Errorf("invalid log-format: %s", a.format)
	}
	if a.log == "" {
		return nil
	}
	f, err := os.OpenFile(a.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	a.logFile = f
	return nil
}

// message writes a line in the format of runc's log, which callers read.
func (a *app) message(level, text string) {
	w := a.logFile
	if w == nil {
		w = os.Stderr
	}
	now := time.Now().Format(time.RFC3339)
	if a.format == "json" {
		fmt.Fprintf(w, "{\"level\":%s,\"msg\":%s,\"time\":%s}\n", quoteJSON(level), quoteJSON(text), quoteJSON(now))
		return
	}
	fmt.Fprintf(w, "time=%q level=%s msg=%q\n", now, level, text)
}

// debugging is what takes debug messages, or nil.
func (a *app) debugging() func(string) {
	if !a.debug {
		return nil
	}
	return func(text string) { a.message("debug", text) }
}

func (a *app) warn(text string) { a.message("warning", text) }

// isExec reports whether a program is there and can't be executed: as in runc, that is all of the output then.
func isExec(err error) bool { return strings.HasPrefix(err.Error(), "exec /") }

// fatal reports an error, to the log and to whoever looks.
func (a *app) fatal(err error, code int) int {
	if a.logFile == nil && isExec(err) {
		fmt.Fprintln(os.Stderr, err)
		return code
	}
	a.message("error", err.Error())
	if a.logFile != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// quoteJSON is a JSON string.
func quoteJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
