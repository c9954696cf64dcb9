package runtime

import (
	"fmt"
	"slices"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// syncProgress is the first of the points at which a child only tells how far it has come.
const syncProgress = 1 << 16

// progress has a child tell how far it has come, for Options.Debug. Its lines name the stages as runc's do, since
// people and programs look for them. With a nil debug nothing is told, and no step is added for it.
type progress struct {
	debug func(msg string)
	lines []func(pid int) string
}

// emit adds a point at which the child waits until the line is written. The line is made then.
func (g *progress) emit(p *launch.Program, line func(pid int) string) {
	if g.debug == nil {
		return
	}
	p.Step("tell how far it has come")
	p.Sync(syncProgress + len(g.lines))
	g.lines = append(g.lines, line)
}

// stage is emit for a line that is known before.
func (g *progress) stage(p *launch.Program, text string) {
	g.emit(p, func(int) string { return text })
}

// affinity tells the processors the child may run on.
func (g *progress) affinity(p *launch.Program) {
	g.emit(p, func(pid int) string {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil {
			return fmt.Sprintf("nsexec[%d]: affinity: %v", pid, err)
		}
		return fmt.Sprintf("nsexec[%d]: affinity: 0x%s", pid, hexMask(&set))
	})
}

// hexMask is the number whose bits are the processors.
func hexMask(set *unix.CPUSet) string {
	const digits = "0123456789abcdef"
	var text []byte
	for left, i := set.Count(), 0; left > 0 || i == 0; i += 4 {
		digit := 0
		for bit := range 4 {
			if set.IsSet(i + bit) {
				digit |= 1 << bit
				left--
			}
		}
		text = append(text, digits[digit])
	}
	slices.Reverse(text)
	return string(text)
}

// tell writes the line of a point, if it is one of these.
func (g *progress) tell(p *launch.Proc, at launch.Point) {
	if i := at.ID - syncProgress; i >= 0 && i < len(g.lines) {
		g.debug(g.lines[i](p.Pid))
	}
}
