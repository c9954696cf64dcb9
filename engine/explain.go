package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	units "github.com/docker/go-units"

	"cale/engine/ocispec"
)

// Explanation says why a container is as it is.
type Explanation struct {
	ID, Name, Status string
	Reasons          []Reason
}

// Reason is one thing that refused, ended or slows a container's processes.
type Reason struct {
	// Topic is exit, start, oom, limit, capability, seccomp, apparmor or health.
	Topic string
	Text  string
	// Hint is what can be done about it, or "".
	Hint string
}

// Explain tells why a container ended or did not start, and what the kernel keeps from one that runs.
func (e *Engine) Explain(ctx context.Context, ref string) (Explanation, error) {
	c, err := e.find(ref)
	if err != nil {
		return Explanation{}, err
	}
	c.mu.Lock()
	rec, r := c.rec, c.run
	c.mu.Unlock()
	x := Explanation{ID: c.id, Name: rec.Name, Status: string(rec.State.Status)}
	if r == nil {
		x.Reasons = append(x.Reasons, whyEnded(&rec)...)
	} else {
		x.Reasons = append(x.Reasons, e.whyHeld(ctx, c, &rec, r)...)
	}
	x.Reasons = append(x.Reasons, kernelSaid(c.id, rec.State.StartedAt)...)
	return x, nil
}

// signals that end processes for reasons of their own.
var signalReasons = map[unix.Signal][2]string{
	unix.SIGKILL: {"SIGKILL: it was killed, and could do nothing about it", ""},
	unix.SIGSEGV: {"SIGSEGV: it used memory that is not its own; that is an error of the program", ""},
	unix.SIGABRT: {"SIGABRT: it gave up by itself; that is an error of the program, and its log may say which", ""},
	unix.SIGBUS:  {"SIGBUS: a file or memory it had mapped was not there any more", "a full /dev/shm does that too: --shm-size"},
	unix.SIGILL:  {"SIGILL: it has instructions that this processor does not know", "the image may be made for a newer processor"},
	unix.SIGSYS:  {"SIGSYS: seccomp ended it for a system call that its profile forbids", "--security-opt seccomp=PROFILE allows more"},
	unix.SIGTERM: {"SIGTERM: it was asked to end, and does nothing else then", ""},
	unix.SIGINT:  {"SIGINT: it was interrupted", ""},
	unix.SIGXCPU: {"SIGXCPU: it used up its limit of processor time", "--ulimit cpu"},
	unix.SIGXFSZ: {"SIGXFSZ: it wrote a file larger than its limit", "--ulimit fsize"},
}

// whyEnded explains a container without a process.
func whyEnded(rec *record) (out []Reason) {
	st := &rec.State
	add := func(topic, hint, text string, args ...any) {
		out = append(out, Reason{Topic: topic, Hint: hint, Text: fmt.Sprintf(text, args...)})
	}
	switch {
	case st.Error != "":
		hint := ""
		switch {
		case strings.Contains(st.Error, "exec format error"):
			hint = "the program is made for another kind of processor, or is a script without #! line: see --platform"
		case st.ExitCode == 127:
			hint = "the image has no such program: look at the command, and at PATH"
		case st.ExitCode == 126:
			hint = "the program is there, but may not be executed by this user: look at its mode, and at noexec mounts"
		case strings.Contains(st.Error, "already allocated") || strings.Contains(st.Error, "address already in use"):
			hint = "another process or container has the port: choose another with -p"
		}
		add("start", hint, "%s", st.Error)
	case !rec.Started:
		add("start", "", "it was never started")
		return out
	}
	code := st.ExitCode
	h := st.Health
	unhealthy := h != nil && h.Status == "unhealthy"
	switch {
	case st.OOMKilled:
		text := "the kernel killed a process of it because there was no memory left"
		if m := rec.Spec.Resources.Memory; m > 0 {
			text += ": its limit is " + units.BytesSize(float64(m))
		}
		add("oom", "give it more with --memory (also by update), or have the program use less", "%s", text)
	case st.Error != "":
	case code > 128 && code <= 128+64:
		sig := unix.Signal(code - 128)
		why, known := signalReasons[sig]
		if !known {
			why[0] = strings.TrimSpace(unix.SignalName(sig) + ", a signal")
		}
		switch {
		case unhealthy && rec.Spec.OnUnhealthy != "":
			why[0] += "; --health-on-failure=" + rec.Spec.OnUnhealthy + " had it end"
		case rec.Stopped && (sig == unix.SIGKILL || sig == unix.SIGTERM):
			why[0] += "; a client had asked for its end"
			if sig == unix.SIGKILL {
				why[1] = "if stop should let it end by itself: more time with --stop-timeout, another signal with --stop-signal"
			}
		}
		add("exit", why[1], "its first process ended with %d: %s", code, why[0])
	case code == 0:
		add("exit", "", "its first process came to its end, with 0")
	default:
		add("exit", "cale logs "+rec.Name, "its first process ended by itself, with %d", code)
	}
	if code != 0 {
		out = append(out, readOnlyRoot(rec)...)
	}
	if unhealthy {
		add("health", "", "it was unhealthy at last, after %d failed checks in a row", h.FailingStreak)
	}
	return out
}

// readOnlyRoot says that files could not be written, of a container for which that is so: whether it tried, nobody notes.
func readOnlyRoot(rec *record) []Reason {
	if !rec.Spec.Security.ReadOnly {
		return nil
	}
	return []Reason{{Topic: "limit", Hint: "--tmpfs PATH or --volume NAME:PATH gives it a place to write to",
		Text: "its root is read-only: what it writes anywhere but to its mounts is refused with EROFS, Read-only file system"}}
}

// whyHeld explains what a container that runs can't do, and what holds it back.
func (e *Engine) whyHeld(ctx context.Context, c *container, rec *record, r *run) (out []Reason) {
	add := func(topic, hint, text string, args ...any) {
		out = append(out, Reason{Topic: topic, Hint: hint, Text: fmt.Sprintf(text, args...)})
	}
	if rec.State.Status == Paused {
		add("limit", "cale unpause "+rec.Name, "it is paused: none of its processes goes on")
	}
	if s, err := r.shim.Stats(ctx, c.id); err == nil {
		if m := s.Memory; m != nil {
			if m.OOMKills > 0 {
				add("oom", "give it more with update --memory", "the kernel killed %d of its processes because there was no memory left", m.OOMKills)
			} else if m.Failcnt > 0 {
				add("limit", "give it more with update --memory", "it reached its memory limit %d times and had to give pages back", m.Failcnt)
			}
		}
		if p := s.Pids; p != nil && p.Limit > 0 && p.Current >= p.Limit {
			add("limit", "update --pids-limit", "it has as many processes as it may: %d; it can make no more", p.Limit)
		}
		if p := s.CPU; p != nil && p.ThrottledPeriods > 0 {
			add("limit", "update --cpus", "it had to wait for its share of processor time in %d of %d periods, %s in all", p.ThrottledPeriods, p.Periods, time.Duration(p.ThrottledTime).Round(time.Millisecond))
		}
	}
	out = append(out, readOnlyRoot(rec)...)
	out = append(out, heldBack(r.pid)...)
	r.healthReason(&out)
	return out
}

func (r *run) healthReason(out *[]Reason) {
	if r.health == nil {
		return
	}
	if h := r.health.state(); h.Status == "unhealthy" && len(h.Log) > 0 {
		last := h.Log[len(h.Log)-1]
		*out = append(*out, Reason{Topic: "health", Text: fmt.Sprintf("it is unhealthy: the check failed %d times, at last with %d: %s", h.FailingStreak, last.ExitCode, strings.TrimSpace(last.Output))})
	}
}

// heldBack reads from the kernel what a process may not do.
func heldBack(pid int) (out []Reason) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return nil
	}
	field := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		field[name] = strings.TrimSpace(value)
	}
	if bounding, err := strconv.ParseUint(field["CapBnd"], 16, 64); err == nil {
		if lacks := ocispec.CapabilitiesOutside(bounding); len(lacks) > 0 {
			out = append(out, Reason{Topic: "capability", Hint: "--cap-add", Text: "what needs one of these is refused with EPERM: " + strings.Join(lacks, ", ")})
		}
	}
	if field["Seccomp"] == "2" {
		out = append(out, Reason{Topic: "seccomp", Hint: "--security-opt seccomp=PROFILE", Text: "system calls that its profile does not allow are refused, most with EPERM or ENOSYS"})
	}
	if field["NoNewPrivs"] == "1" {
		out = append(out, Reason{Topic: "capability", Text: "no-new-privileges: programs with the setuid bit or with file capabilities gain nothing by them"})
	}
	if profile, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "attr", "current")); err == nil {
		if p := strings.TrimSpace(strings.TrimRight(string(profile), "\x00")); p != "" && p != "unconfined" && strings.Contains(p, "(") {
			out = append(out, Reason{Topic: "apparmor", Hint: "--security-opt apparmor=PROFILE", Text: "confined by the AppArmor profile " + p + ", whose refusals are EACCES"})
		}
	}
	return out
}

// mostKernelLines bounds how much of the kernel's log is looked through.
const mostKernelLines = 20000

// kernelSaid finds what the kernel's log says of a container since it was started.
func kernelSaid(id string, since time.Time) (out []Reason) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // only where this process may read it
	}
	defer unix.Close(fd)
	var boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &boot) != nil {
		return nil
	}
	booted := time.Now().Add(-time.Duration(boot.Nano()))
	buf := make([]byte, 8<<10)
	for range mostKernelLines {
		n, err := unix.Read(fd, buf)
		if err == unix.EPIPE || err == unix.EINTR {
			continue // overtaken by newer lines
		}
		if err != nil || n <= 0 {
			break
		}
		if !bytes.Contains(buf[:n], []byte(id)) {
			continue
		}
		head, text, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), ";")
		f := strings.Split(head, ",")
		if len(f) < 3 {
			continue
		}
		micros, _ := strconv.ParseInt(f[2], 10, 64)
		if booted.Add(time.Duration(micros) * time.Microsecond).Before(since.Add(-time.Second)) {
			continue
		}
		if strings.Contains(text, "oom-kill:") {
			text, _, _ = strings.Cut(text, "\n")
			out = append(out, Reason{Topic: "oom", Text: "the kernel's log: " + text})
		}
		if strings.Contains(text, "fork rejected by pids controller") {
			out = append(out, Reason{Topic: "limit", Hint: "--pids-limit (also by update)", Text: "it had as many processes as it may, and was refused more (fork: Resource temporarily unavailable)"})
		}
	}
	return out
}
