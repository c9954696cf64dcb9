// Package audit is the log of what clients did that gives power over the host:
// one JSON object a line, kept for ever, and turned over by whoever turns the
// machine's logs. Engine and builder write the same file.
package audit

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// Entry is one action that gives power over the host.
type Entry struct {
	Peer    *Peer    `json:"peer,omitempty"`
	Action  string   `json:"action"`
	Object  string   `json:"object"`
	Powers  []string `json:"powers"`
	Outcome string   `json:"outcome"` // done, or the error
}

// Log is the log's file.
type Log struct {
	mu sync.Mutex
	f  *os.File
}

// Open opens the file, which others may append to as well.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &Log{f: f}, nil
}

// Close closes the file.
func (a *Log) Close() error { return a.f.Close() }

// Record appends a line; that it can't is told to the program's own log.
func (a *Log) Record(e Entry) {
	line, err := json.Marshal(struct {
		Time string `json:"time"`
		Entry
	}{time.Now().UTC().Format(time.RFC3339Nano), e})
	if err != nil {
		log.Printf("audit log: %v", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.f.Write(append(line, '\n')); err != nil {
		log.Printf("audit log: %v", err)
	}
}
