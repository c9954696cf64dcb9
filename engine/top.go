package engine

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is one line of a process list.
type process struct {
	pid, ppid, uid int
	comm, cmd      string
	state          string
	tty            int
	ticks          uint64 // of processor time
	begun          time.Time
	vsize, rss     uint64 // bytes
	nice           int
	threads        int
}

// column is one thing ps can tell.
type column struct {
	title string
	value func(*process) string
}

var columns = map[string]column{
	"uid":   {"UID", func(p *process) string { return userName(p.uid) }},
	"user":  {"USER", func(p *process) string { return userName(p.uid) }},
	"pid":   {"PID", func(p *process) string { return strconv.Itoa(p.pid) }},
	"ppid":  {"PPID", func(p *process) string { return strconv.Itoa(p.ppid) }},
	"c":     {"C", func(p *process) string { return strconv.Itoa(int(p.share())) }},
	"%cpu":  {"%CPU", func(p *process) string { return fmt.Sprintf("%.1f", p.share()) }},
	"%mem":  {"%MEM", func(p *process) string { return fmt.Sprintf("%.1f", 100*float64(p.rss)/float64(max(1, hostMemory()))) }},
	"stime": {"STIME", func(p *process) string { return p.since() }},
	"start": {"START", func(p *process) string { return p.since() }},
	"tty":   {"TTY", func(p *process) string { return p.terminal() }},
	"time": {"TIME", func(p *process) string {
		s := p.ticks / clockTicks
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	}},
	"cmd":     {"CMD", func(p *process) string { return p.cmd }},
	"command": {"COMMAND", func(p *process) string { return p.cmd }},
	"args":    {"COMMAND", func(p *process) string { return p.cmd }},
	"comm":    {"COMMAND", func(p *process) string { return p.comm }},
	"stat":    {"STAT", func(p *process) string { return p.state }},
	"vsz":     {"VSZ", func(p *process) string { return strconv.FormatUint(p.vsize/1024, 10) }},
	"rss":     {"RSS", func(p *process) string { return strconv.FormatUint(p.rss/1024, 10) }},
	"ni":      {"NI", func(p *process) string { return strconv.Itoa(p.nice) }},
	"nlwp":    {"NLWP", func(p *process) string { return strconv.Itoa(p.threads) }},
	"etime": {"ELAPSED", func(p *process) string {
		d := time.Since(p.begun).Round(time.Second)
		h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
		if h > 0 {
			return fmt.Sprintf("%02d:%02d:%02d", h, m, s)
		}
		return fmt.Sprintf("%02d:%02d", m, s)
	}},
}

var columnAliases = map[string]string{"pcpu": "%cpu", "pmem": "%mem", "vsize": "vsz", "rssize": "rss", "tt": "tty",
	"tname": "tty", "s": "stat", "state": "stat", "euser": "user", "ruser": "user", "euid": "uid", "ucmd": "comm",
	"ucomm": "comm", "cputime": "time", "nice": "ni", "thcount": "nlwp", "start_time": "stime", "lstart": "start"}

func (p *process) share() float64 {
	lived := time.Since(p.begun).Seconds()
	if lived <= 0 {
		return 0
	}
	return 100 * float64(p.ticks) / clockTicks / lived
}

func (p *process) since() string {
	if time.Since(p.begun) < 24*time.Hour {
		return p.begun.Format("15:04")
	}
	return p.begun.Format("Jan02")
}

func (p *process) terminal() string {
	if p.tty == 0 {
		return "?"
	}
	major, minor := p.tty>>8&0xfff, p.tty&0xff|p.tty>>12&0xfff00
	if major >= 136 && major <= 143 {
		return "pts/" + strconv.Itoa(minor+(major-136)<<8)
	}
	return "tty" + strconv.Itoa(minor)
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// psColumns reads the arguments of ps that people give docker top. No program is run: what can't be told is refused.
func psColumns(args string) (cols []column, sort []sortKey, err error) {
	names := []string{"uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"}
	f := strings.Fields(args)
	for i := 0; i < len(f); i++ {
		a := f[i]
		switch {
		case a == "aux" || a == "-aux" || a == "u" || a == "axu":
			names = []string{"user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command"}
		case a == "-ef" || a == "-e" || a == "-f" || a == "-A" || a == "ef":
		case strings.HasSuffix(a, "o") && strings.Trim(a, "-aAexo") == "":
			if i+1 == len(f) {
				return nil, nil, invalid("ps: list of columns missing after %s", a)
			}
			i++
			names = strings.Split(f[i], ",")
		case strings.HasPrefix(a, "-o"):
			names = strings.Split(a[2:], ",")
		case strings.HasPrefix(a, "-eo"):
			names = strings.Split(a[3:], ",")
		case strings.HasPrefix(a, "--sort="):
			if sort, err = sortKeys(a[len("--sort="):]); err != nil {
				return nil, nil, err
			}
		default:
			return nil, nil, invalid("ps argument %q is not supported: use -ef, aux, or -o with column names", a)
		}
	}
	var out []column
	for _, n := range names {
		n, title, hasTitle := strings.Cut(strings.ToLower(n), "=")
		if alias, ok := columnAliases[n]; ok {
			n = alias
		}
		c, ok := columns[n]
		if !ok {
			return nil, nil, invalid("ps column %q is not supported", n)
		}
		if hasTitle && title != "" {
			c.title = title
		}
		out = append(out, c)
	}
	if !slices.ContainsFunc(out, func(c column) bool { return c.title == "PID" }) {
		return nil, nil, invalid("Couldn't find PID field in ps output")
	}
	return out, sort, nil
}

// sortKey is one column that lines are sorted by.
type sortKey struct {
	column
	descending bool
}

// sortKeys reads ps's --sort: columns with commas between, - before those that are to fall.
func sortKeys(list string) ([]sortKey, error) {
	var out []sortKey
	for _, n := range strings.Split(list, ",") {
		k := sortKey{descending: strings.HasPrefix(n, "-")}
		n = strings.ToLower(strings.TrimLeft(n, "+-"))
		if alias, ok := columnAliases[n]; ok {
			n = alias
		}
		var ok bool
		if k.column, ok = columns[n]; !ok {
			return nil, invalid("ps can't sort by %q", n)
		}
		out = append(out, k)
	}
	return out, nil
}

// compare orders two processes by a column: numbers as numbers, all else as text.
func (k sortKey) compare(a, b *process) int {
	x, y := k.value(a), k.value(b)
	order := strings.Compare(x, y)
	m, err1 := strconv.ParseFloat(x, 64)
	n, err2 := strconv.ParseFloat(y, 64)
	if err1 == nil && err2 == nil {
		order = cmp.Compare(m, n)
	}
	if k.descending {
		return -order
	}
	return order
}

// Top lists a container's processes as ps would.
func (e *Engine) Top(ctx context.Context, ref, psArgs string) (titles []string, rows [][]string, err error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, nil, err
	}
	cols, sort, err := psColumns(psArgs)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.running()
	if err != nil {
		return nil, nil, err
	}
	pids, err := r.shim.Pids(ctx, c.id)
	if err != nil {
		if gone(err) {
			return nil, nil, conflict("container %s is not running", c.id)
		}
		return nil, nil, err
	}
	slices.Sort(pids)
	for _, col := range cols {
		titles = append(titles, col.title)
	}
	var all []*process
	for _, pid := range pids {
		if p, err := readProcess(int(pid)); err == nil { // others have ended
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b *process) int {
		for _, k := range sort {
			if order := k.compare(a, b); order != 0 {
				return order
			}
		}
		return 0
	})
	for _, p := range all {
		var row []string
		for _, col := range cols {
			row = append(row, col.value(p))
		}
		rows = append(rows, row)
	}
	e.emit(c, "top")
	return titles, rows, nil
}

func readProcess(pid int) (*process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	// The name stands in parentheses and may hold some itself.
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return nil, fmt.Errorf("%s/stat: unexpected form", dir)
	}
	f := strings.Fields(string(raw[end+1:])) // from the third field on
	if len(f) < 22 {
		return nil, fmt.Errorf("%s/stat: unexpected form", dir)
	}
	num := func(i int) uint64 {
		n, _ := strconv.ParseInt(f[i-3], 10, 64) // proc(5) counts from 1
		return uint64(n)
	}
	p := &process{pid: pid, comm: string(raw[open+1 : end]), state: f[0], ppid: int(num(4)), tty: int(num(7)),
		ticks: num(14) + num(15), nice: int(int64(num(19))), threads: int(num(20)), vsize: num(23), rss: num(24) * uint64(os.Getpagesize())}
	p.begun = bootTime().Add(time.Duration(num(22)) * time.Second / clockTicks)
	if sys, ok := ownerOf(st); ok {
		p.uid = sys
	}
	cmd, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return nil, err
	}
	p.cmd = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
	if p.cmd == "" {
		p.cmd = "[" + p.comm + "]"
	}
	return p, nil
}
