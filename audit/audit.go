// Package audit is the log of what clients have asked to be changed: who, what, and how it ended. It is one JSON object a
// line. Engine and builder write the same file.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one request that changes something.
type Entry struct {
	Peer    *Peer    `json:"peer,omitempty"` // nil where the kernel doesn't tell
	API     string   `json:"api"`            // docker, build or cri
	Action  string   `json:"action"`
	Request string   `json:"request,omitempty"` // as it came: method and path, or the call's name
	Object  string   `json:"object"`
	Made    string   `json:"made,omitempty"`    // the id of what came of it
	Command []string `json:"command,omitempty"` // that is run
	Powers  []string `json:"powers,omitempty"`  // that it gives over the host
	Outcome string   `json:"outcome"`           // done, begun, or the error
}

// End sets the outcome.
func (e *Entry) End(err error) {
	e.Outcome = "done"
	if err != nil {
		e.Outcome = clip(err.Error())
	}
}

// longest bounds what a client's words take of a line.
const longest = 4096

func clip(s string) string {
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return s
}

// The file is turned over when it is so large, and so many old ones are kept, as audit.log.1 and so on.
const (
	mostBytes = 16 << 20
	mostFiles = 4
)

// Log is the log's file.
type Log struct {
	path string
	most int64

	mu sync.Mutex
	f  *os.File
}

// Open opens the file, which others may append to and turn over as well.
func Open(path string) (*Log, error) {
	a := &Log{path: path, most: mostBytes}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return a, nil
}

func (a *Log) open() error {
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		a.f = f
	}
	return err
}

// Close closes the file.
func (a *Log) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.f.Close()
}

// Record appends a line; that it can't is told to the program's own log.
func (a *Log) Record(e Entry) {
	e.Action, e.Request, e.Object = clip(e.Action), clip(e.Request), clip(e.Object)
	room := longest
	for i, word := range e.Command {
		if room -= len(word) + len(`"",`); room < 0 {
			e.Command = append(e.Command[:i:i], "…")
			break
		}
	}
	line, err := json.Marshal(struct {
		Time string `json:"time"`
		Entry
	}{time.Now().UTC().Format(time.RFC3339Nano), e})
	if err == nil {
		err = a.append(append(line, '\n'))
	}
	if err != nil {
		log.Printf("audit log: %v", err)
	}
}

// append writes a line into the file that has the name, which another process may have turned over since.
func (a *Log) append(line []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.f == nil { // it couldn't be opened anew
			if err := a.open(); err != nil {
				return err
			}
		}
		if err := unix.Flock(int(a.f.Fd()), unix.LOCK_EX); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		mine, err := a.f.Stat()
		if err != nil {
			return err
		}
		named, err := os.Stat(a.path)
		if err == nil && os.SameFile(mine, named) {
			if mine.Size() == 0 || mine.Size()+int64(len(line)) <= a.most {
				defer unix.Flock(int(a.f.Fd()), unix.LOCK_UN)
				_, err := a.f.Write(line)
				return err
			}
			err = a.turn()
		} else if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		a.f.Close() // and its lock
		a.f = nil
		if err != nil {
			return err
		}
	}
}

// turn renames the files, each to the next number; the last one is lost.
func (a *Log) turn() error {
	name := func(i int) string {
		if i == 0 {
			return a.path
		}
		return a.path + "." + strconv.Itoa(i)
	}
	for i := mostFiles - 1; i >= 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
