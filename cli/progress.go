package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"cale/client"

	"github.com/docker/go-units"
)

// showProgress prints the messages of a pull, push, load or import: on a
// terminal one line for each layer, drawn again as it goes on; elsewhere plain
// lines without the counting. aux gets what a message carries besides.
func showProgress(w io.Writer, r io.Reader, aux func(json.RawMessage)) error {
	d := json.NewDecoder(bufio.NewReader(r))
	width, _, term := terminalSize(w)
	s := newScreen(w, int(width))
	for {
		var m client.Progress
		if err := d.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading the engine's progress: %w", err)
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		if m.ErrorText != "" {
			return errors.New(m.ErrorText)
		}
		if m.Aux != nil {
			if aux != nil {
				aux(m.Aux)
			}
			if m.Status == "" && m.Stream == "" {
				continue
			}
		}
		switch {
		case m.Stream != "":
			s.w.WriteString(m.Stream)
		case term:
			s.draw(m)
		case counting(m):
			continue
		case m.ID != "":
			fmt.Fprintf(s.w, "%s: %s\n", m.ID, m.Status)
		default:
			fmt.Fprintln(s.w, m.Status)
		}
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
}

// counting tells a message that only counts on.
func counting(m client.Progress) bool {
	return m.ProgressDetail != nil && (m.ProgressDetail.Current > 0 || m.ProgressDetail.Total > 0)
}

// screen draws lines again in place.
type screen struct {
	w     *bufio.Writer
	width int
	lines map[string]int // id to line, from the first one drawn
}

func newScreen(w io.Writer, width int) *screen {
	return &screen{w: bufio.NewWriter(w), width: width, lines: map[string]int{}}
}

func (s *screen) draw(m client.Progress) {
	if m.ID == "" {
		// What comes without an id ends the block that can be drawn again.
		clear(s.lines)
		fmt.Fprintf(s.w, "%s\n", m.Status)
		return
	}
	text := m.ID + ": " + m.Status
	if counting(m) {
		text += " " + bar(m.ProgressDetail, s.width-len(text)-1)
	}
	if r := []rune(text); s.width > 0 && len(r) > s.width {
		text = string(r[:s.width])
	}
	line, known := s.lines[m.ID]
	if !known {
		line = len(s.lines)
		s.lines[m.ID] = line
		fmt.Fprintf(s.w, "%s\n", text)
		return
	}
	up := len(s.lines) - line
	fmt.Fprintf(s.w, "\x1b[%dA\r\x1b[2K%s\x1b[%dB\r", up, text, up)
}

// bar is a progress as text that fits a width: a bar when there is room.
func bar(p *client.ProgressDetail, width int) string {
	amount := func(n int64) string {
		if p.Units != "" {
			return fmt.Sprintf("%d", n)
		}
		return units.HumanSize(float64(n))
	}
	numbers := fmt.Sprintf("%8s", amount(p.Current))
	if p.Total > 0 && p.Current <= p.Total {
		numbers = fmt.Sprintf("%8s/%s", amount(p.Current), amount(p.Total))
	}
	if p.Units != "" {
		numbers += " " + p.Units
	}
	const size = 50
	if p.Total <= 0 || width < size+3+len(numbers) {
		return numbers
	}
	full := int(min(p.Current, p.Total) * size / p.Total)
	head := ""
	if full < size {
		head = ">"
	}
	return "[" + strings.Repeat("=", full) + head + strings.Repeat(" ", size-full-len(head)) + "]  " + strings.TrimSpace(numbers)
}
