package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data; the argument's low word comes first on all machines of the table.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// compiler holds one program under construction.
type compiler struct {
	asm
	spec  *specs.LinuxSeccomp
	rules [][]rule // by entry of spec.Syscalls
	def   uint32   // the default action

	named  []named          // the calls that the entries name, in their order
	blocks map[string]label // what rules were written already, by the entries they come from
	found  []hit            // the room for hits
}

// named is a call that an entry of spec.Syscalls names.
type named struct {
	*call
	entry uint16
}

// hit says that an entry of spec.Syscalls speaks of a call: the call's number, the entry, and of a multiplexed call
// which one it is (0 is none). They sort by number, and for one call by entry, whose order decides between rules.
type hit uint64

func newHit(number uint32, entry, op uint16) hit {
	return hit(number)<<32 | hit(entry)<<16 | hit(op)
}

func (h hit) number() uint32 { return uint32(h >> 32) }
func (h hit) entry() uint16  { return uint16(h >> 16) }
func (h hit) op() uint16     { return uint16(h) }

// program writes one part for each architecture and, at the start, the choice between them.
func (c *compiler) program(columns []int) []unix.SockFilter {
	// The kernel reports no others but those the configuration left out: a program made for one of them ends.
	start := c.ret(unix.SECCOMP_RET_KILL_PROCESS)
	for _, column := range slices.Backward(columns) {
		if column == x32 {
			continue // part of amd64's
		}
		a := archOf(column)
		spans := c.part(a)
		if column == amd64 {
			high := []span{{x32Bit, c.ret(unix.SECCOMP_RET_KILL_PROCESS)}}
			if slices.Contains(columns, x32) {
				high = c.part(archOf(x32))
				for i := range high {
					high[i].first |= x32Bit
				}
			} else if c.restrictive() {
				// A kernel without x32 would say so, too.
				high[0].target = c.ret(enosys)
			}
			spans = append(spans, high...)
			// A tracer skips a call by making its number -1, which is no x32 call.
			spans = append(spans, span{1<<32 - 1, c.ret(c.def)})
		}
		part := c.load(offNumber, c.search(c.merge(spans)))
		start = c.branch(unix.BPF_JEQ, a.audit, part, start)
	}
	return c.asm.program(c.load(offArch, start))
}

const enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// restrictive reports whether calls the configuration doesn't name are refused.
func (c *compiler) restrictive() bool {
	switch c.def & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP, unix.SECCOMP_RET_ERRNO:
		return true
	}
	return false
}

// part works out where each number of one architecture goes.
func (c *compiler) part(a arch) []span {
	c.blocks = make(map[string]label)
	hits, last := c.hits(a)
	slices.Sort(hits)
	spans := append(make([]span, 0, 256), span{0, c.ret(c.def)})
	to := func(first uint32, target label) {
		switch end := &spans[len(spans)-1]; {
		case end.first == first:
			end.target = target
		case c.same(end.target, target):
		default:
			spans = append(spans, span{first, target})
		}
	}
	// gap fills the numbers from first up to the one before next.
	gap := func(first, next uint32) {
		if first < next {
			to(first, c.ret(c.def))
		}
		if newer := max(first, last+1); newer < next && c.restrictive() && last > 0 {
			to(newer, c.ret(enosys))
		}
	}
	end := uint32(0)
	for len(hits) > 0 {
		n := 1
		number := hits[0].number()
		for n < len(hits) && hits[n].number() == number {
			n++
		}
		gap(end, number)
		to(number, c.decide(a, hits[:n]))
		end = number + 1
		hits = hits[n:]
	}
	gap(end, x32Bit)
	return c.merge(spans)
}

// same reports whether two labels do the same: they are one, or both return the same.
func (c *compiler) same(x, y label) bool {
	in := c.code[x]
	return x == y || in.Code == unix.BPF_RET|unix.BPF_K && in == c.code[y]
}

// merge joins neighbours that were made alike when an earlier one was replaced.
func (c *compiler) merge(spans []span) []span {
	return slices.CompactFunc(spans, func(x, y span) bool { return c.same(x.target, y.target) })
}

// name looks up the calls that the entries name; names that no table knows are left out.
func (c *compiler) name() {
	n := 0
	for i := range c.spec.Syscalls {
		n += len(c.spec.Syscalls[i].Names)
	}
	c.named = make([]named, 0, n)
	for i := range c.spec.Syscalls {
		for _, name := range c.spec.Syscalls[i].Names {
			if row := lookup(name); row != nil {
				c.named = append(c.named, named{row, uint16(i)})
			}
		}
	}
}

// hits lists what calls the entries speak of, and the highest number the configuration names.
func (c *compiler) hits(a arch) (hits []hit, last uint32) {
	hits = c.found[:0]
	defer func() { c.found = hits }()
	for _, n := range c.named {
		ruled := len(c.rules[n.entry]) > 0
		if n.numbers[a.column] >= 0 {
			number := uint32(n.numbers[a.column])
			// arm's private calls lie far above the others.
			if number < 0xf0000 {
				last = max(last, number)
			}
			if ruled {
				hits = append(hits, newHit(number, n.entry, 0))
			}
		}
		if m, ok := a.mux[n.name]; ok && ruled {
			number := uint32(lookup(m.through).numbers[a.column])
			hits = append(hits, newHit(number, n.entry, uint16(m.op)))
		}
	}
	return hits, last
}

// decide writes what happens on one call.
func (c *compiler) decide(a arch, hits []hit) label {
	// One rule without conditions counts for all, the first one of several.
	for _, h := range hits {
		if h.op() != 0 {
			continue
		}
		for _, r := range c.rules[h.entry()] {
			if len(r.args) == 0 {
				return c.ret(r.action)
			}
		}
	}
	key := make([]byte, 0, 4*len(hits))
	var list []rule
	for _, h := range hits {
		key = append(key, byte(h.entry()), byte(h.entry()>>8), byte(h.op()))
		if h.op() == 0 {
			list = append(list, c.rules[h.entry()]...)
			continue
		}
		list = append(list, c.muxRules(h)...)
	}
	if l, ok := c.blocks[string(key)]; ok {
		return l
	}
	l := c.conditions(a, list)
	c.blocks[string(key)] = l
	return l
}

// muxRules are an entry's rules for a call made through socketcall or ipc. The filter can't see that call's own
// arguments (they lie in memory), so rules with conditions only count where taking them as met is the safe side.
func (c *compiler) muxRules(h hit) []rule {
	// ipc has a version in the upper half of its first argument.
	via := []specs.LinuxSeccompArg{{Index: 0, Value: 0xffff, ValueTwo: uint64(h.op()), Op: specs.OpMaskedEqual}}
	var list []rule
	for _, r := range c.rules[h.entry()] {
		full := r.action & unix.SECCOMP_RET_ACTION_FULL
		permits := full == unix.SECCOMP_RET_ALLOW || full == unix.SECCOMP_RET_LOG
		if len(r.args) == 0 || !permits {
			list = append(list, rule{r.action, via})
		}
	}
	return list
}

// conditions tries rules in order; when none matches it is the default's turn.
func (c *compiler) conditions(a arch, list []rule) label {
	next := c.ret(c.def)
	for i := len(list) - 1; i >= 0; i-- {
		if n := equalRun(list[:i+1]); n > 2 {
			next = c.oneOf(a, list[i+1-n:i+1], next)
			i -= n - 1
			continue
		}
		yes := c.ret(list[i].action)
		for _, arg := range slices.Backward(list[i].args) {
			yes = c.check(a, arg, yes, next)
		}
		next = yes
	}
	return next
}

// equalRun counts the rules at the list's end that compare one argument with values that differ in their low words
// only, and do the same.
func equalRun(list []rule) int {
	end := list[len(list)-1]
	n := 0
	for _, r := range slices.Backward(list) {
		if len(r.args) != 1 || r.args[0].Op != specs.OpEqualTo || r.action != end.action ||
			r.args[0].Index != end.args[0].Index || r.args[0].Value>>32 != end.args[0].Value>>32 {
			break
		}
		n++
	}
	return n
}

// oneOf writes such a run as a search.
func (c *compiler) oneOf(a arch, run []rule, no label) label {
	values := make([]uint32, len(run))
	for i, r := range run {
		values[i] = uint32(r.args[0].Value)
	}
	slices.Sort(values)
	yes := c.ret(run[0].action)
	spans := []span{{0, no}}
	for _, v := range slices.Compact(values) {
		if end := &spans[len(spans)-1]; end.first == v {
			end.target = yes
		} else {
			spans = append(spans, span{v, yes})
		}
		if v < 1<<32-1 {
			spans = append(spans, span{v + 1, no})
		}
	}
	spans = slices.CompactFunc(spans, func(x, y span) bool { return x.target == y.target })
	arg := run[0].args[0]
	low := c.load(offset(arg), c.search(spans))
	if !a.wide {
		return low
	}
	return c.load(offset(arg)+4, c.branch(unix.BPF_JEQ, uint32(arg.Value>>32), low, no))
}

func offset(arg specs.LinuxSeccompArg) uint32 { return offArgs + 8*uint32(arg.Index) }

// check compares one argument, of 64 bits in two words.
func (c *compiler) check(a arch, arg specs.LinuxSeccompArg, yes, no label) label {
	high, low := uint32(arg.Value>>32), uint32(arg.Value)
	// word writes the comparison of one half.
	lowWord := func(op uint16, yes, no label) label {
		return c.load(offset(arg), c.branch(op, low, yes, no))
	}
	highWord := func(rest label) label {
		if !a.wide {
			return rest
		}
		return c.load(offset(arg)+4, rest)
	}
	// equalHigh goes on with rest where the high words are equal.
	equalHigh := func(rest, otherwise label) label {
		if !a.wide {
			return rest
		}
		return c.branch(unix.BPF_JEQ, high, rest, otherwise)
	}
	// ordered is for > and >=: a greater high word settles it, a smaller one too.
	ordered := func(op uint16, yes, no label) label {
		rest := equalHigh(lowWord(op, yes, no), no)
		if a.wide {
			rest = c.branch(unix.BPF_JGT, high, yes, rest)
		}
		return highWord(rest)
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return highWord(equalHigh(lowWord(unix.BPF_JEQ, yes, no), no))
	case specs.OpNotEqual:
		return highWord(equalHigh(lowWord(unix.BPF_JEQ, no, yes), yes))
	case specs.OpGreaterThan:
		return ordered(unix.BPF_JGT, yes, no)
	case specs.OpGreaterEqual:
		return ordered(unix.BPF_JGE, yes, no)
	case specs.OpLessThan:
		return ordered(unix.BPF_JGE, no, yes)
	case specs.OpLessEqual:
		return ordered(unix.BPF_JGT, no, yes)
	}
	// Masked: the value is the mask, the second one what has to be left.
	want := arg.ValueTwo
	rest := c.load(offset(arg), c.and(low, c.branch(unix.BPF_JEQ, uint32(want), yes, no)))
	if !a.wide || high == 0 && want>>32 == 0 {
		return rest
	}
	return c.load(offset(arg)+4, c.and(high, c.branch(unix.BPF_JEQ, uint32(want>>32), rest, no)))
}
