package format

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cale/client"

	"github.com/docker/go-units"
)

// Watched is a container on the live view: what it used between two samples.
type Watched struct {
	ID, Name, Status    string
	Restarts            int
	Known               bool // whether anything below is known yet
	CPU                 float64
	Memory, Limit       uint64
	Pressure            *client.Pressure
	Read, Write, Rx, Tx float64 // bytes a second
	Tasks               uint64
}

// NewWatched makes a row from a container's last two samples; before is the
// zero value if there is one only.
func NewWatched(id, name, status string, restarts int, last, before client.Stats) Watched {
	w := Watched{ID: id, Name: name, Status: status, Restarts: restarts, Known: last.Read != "", CPU: cpuPercent(last),
		Memory: memoryUsed(last.Memory), Limit: last.Memory.Limit, Pressure: last.Pressure, Tasks: last.Pids.Current}
	now, err := time.Parse(time.RFC3339Nano, last.Read)
	then, err2 := time.Parse(time.RFC3339Nano, before.Read)
	took := now.Sub(then).Seconds()
	if err != nil || err2 != nil || took <= 0 {
		return w
	}
	a, b := moved(last), moved(before)
	for i, rate := range []*float64{&w.Read, &w.Write, &w.Rx, &w.Tx} {
		if a[i] > b[i] { // counters start anew with the container
			*rate = float64(a[i]-b[i]) / took
		}
	}
	return w
}

// moved are the bytes read, written, received and sent so far.
func moved(s client.Stats) (n [4]uint64) {
	for _, b := range s.Block.Bytes {
		switch strings.ToLower(b.Op) {
		case "read":
			n[0] += b.Value
		case "write":
			n[1] += b.Value
		}
	}
	for _, i := range s.Networks {
		n[2] += i.RxBytes
		n[3] += i.TxBytes
	}
	return n
}

// Order is one way to sort the live view, by the key that chooses it.
type Order struct {
	Key  byte
	Name string
	less func(a, b *Watched) int
}

// Orders are all ways; the greatest come first, names by the alphabet.
var Orders = []Order{
	{'c', "cpu", func(a, b *Watched) int { return cmp.Compare(b.CPU, a.CPU) }},
	{'m', "memory", func(a, b *Watched) int { return cmp.Compare(b.Memory, a.Memory) }},
	{'w', "pressure", func(a, b *Watched) int { return cmp.Compare(waiting(b), waiting(a)) }},
	{'i', "io", func(a, b *Watched) int { return cmp.Compare(b.Read+b.Write, a.Read+a.Write) }},
	{'n', "net", func(a, b *Watched) int { return cmp.Compare(b.Rx+b.Tx, a.Rx+a.Tx) }},
	{'p', "pids", func(a, b *Watched) int { return cmp.Compare(b.Tasks, a.Tasks) }},
	{'a', "name", func(a, b *Watched) int { return 0 }},
}

// waiting is the worst pressure of the three.
func waiting(w *Watched) (worst float64) {
	if w.Pressure == nil {
		return 0
	}
	for _, p := range []*client.Waiting{w.Pressure.CPU, w.Pressure.Memory, w.Pressure.IO} {
		if p != nil {
			worst = max(worst, p.Some.Avg10)
		}
	}
	return worst
}

// SortWatched sorts rows; reverse turns the order round.
func SortWatched(rows []Watched, by Order, reverse bool) {
	slices.SortFunc(rows, func(a, b Watched) int {
		n := by.less(&a, &b)
		if n == 0 {
			n = cmp.Compare(a.Name, b.Name)
		}
		if reverse {
			n = -n
		}
		return n
	})
}

// watchedLine lays out one row; the heading is laid out by the same.
const watchedLine = "%-*s %7s %19s %17s %15s %15s %5s %4s  %s"

// WatchedHeader is the line of headings for names of a width.
func WatchedHeader(width int) string {
	return fmt.Sprintf(watchedLine, width, "NAME", "CPU %", "MEM / LIMIT", "PSI CPU/MEM/IO %", "I/O R/W s", "NET RX/TX s", "PIDS", "RST", "STATUS")
}

// Line is one row for names of a width.
func (w Watched) Line(width int) string {
	if !w.Known {
		return fmt.Sprintf(watchedLine, width, Ellipsis(w.Name, width), "--", "--", "--", "--", "--", "--", fmt.Sprint(w.Restarts), w.Status)
	}
	psi := "not counted"
	if p := w.Pressure; p != nil {
		psi = share(p.CPU) + " " + share(p.Memory) + " " + share(p.IO)
	}
	pair := func(a, b float64) string {
		return units.HumanSizeWithPrecision(a, 3) + "/" + units.HumanSizeWithPrecision(b, 3)
	}
	return fmt.Sprintf(watchedLine, width, Ellipsis(w.Name, width), fmt.Sprintf("%.1f", w.CPU),
		units.BytesSize(float64(w.Memory))+"/"+units.BytesSize(float64(w.Limit)), psi, pair(w.Read, w.Write), pair(w.Rx, w.Tx),
		fmt.Sprint(w.Tasks), fmt.Sprint(w.Restarts), w.Status)
}

func share(w *client.Waiting) string {
	if w == nil {
		return "--"
	}
	return fmt.Sprintf("%.1f", w.Some.Avg10)
}
