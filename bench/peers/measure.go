package peers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Contender is whose work is measured.
type Contender struct {
	Name    string
	Daemons []string // programs that work for it all the time
	Without string   // part of the command line or environment of daemons of that name that are not its own
	Out     bool     // it has failed, and is left out of what follows
}

// Command runs one and waits for it.
func Command(ctx context.Context, env []string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return nil
}

// Measured is what a contender took, one entry a round.
type Measured struct {
	Wall, CPU []time.Duration
	Memory    int64 // bytes, the most of its largest process in any round
}

// Measure runs a step of a contender's and adds what it took.
func (c *Contender) Measure(m *Measured, step func() error) error {
	pids := c.pids()
	for _, pid := range pids {
		// 5 forgets the most that a process had in memory so far.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	before, began := c.cpu(pids), time.Now()
	if err := step(); err != nil {
		return err
	}
	m.Wall = append(m.Wall, time.Since(began))
	m.CPU = append(m.CPU, c.cpu(pids)-before)
	for _, pid := range pids {
		m.Memory = max(m.Memory, status(pid, "VmHWM:")<<10)
	}
	return nil
}

// cpu is what the daemons and all commands that have ended have used.
func (c *Contender) cpu(pids []int) time.Duration {
	var sum time.Duration
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &r) == nil {
		sum = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 15 {
			continue
		}
		for _, i := range []int{11, 12, 13, 14} { // its own and its children's, in hundredths of a second
			n, _ := strconv.ParseInt(f[i], 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// pids are the contender's daemons: those in this network namespace, which the benchmark has to itself.
func (c *Contender) pids() []int {
	here, _ := os.Readlink("/proc/self/ns/net")
	all, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range all {
		name, _ := os.ReadFile(dir + "/comm")
		if !slices.Contains(c.Daemons, strings.TrimSpace(string(name))) {
			continue
		}
		if ns, _ := os.Readlink(dir + "/ns/net"); ns != here {
			continue
		}
		argv, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		if c.Without != "" && (bytes.Contains(argv, []byte(c.Without)) || bytes.Contains(env, []byte(c.Without))) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// status is a number of a process's status, in its unit.
func status(pid int, field string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), field)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n
}

// Report prints what all took; the first is what the others are compared with.
func Report(title string, list []*Contender, all []Measured) {
	fmt.Printf("  %s\n", title)
	var wall, cpu time.Duration
	for i, c := range list {
		m := all[i]
		if c.Out || len(m.Wall) == 0 {
			continue
		}
		slices.Sort(m.Wall)
		slices.Sort(m.CPU)
		w, u := m.Wall[len(m.Wall)/2], m.CPU[len(m.CPU)/2]
		line := fmt.Sprintf("    %-22s %8.0f ms   cpu %8.0f ms", c.Name, ms(w), ms(u))
		if m.Memory > 0 {
			line += fmt.Sprintf("   memory %4d MB", m.Memory>>20)
		}
		if i == 0 {
			wall, cpu = w, u
		} else {
			line += fmt.Sprintf("   %5.2f and %5.2f times the first", float64(w)/float64(wall), float64(u)/float64(max(cpu, 1)))
		}
		fmt.Println(line)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
