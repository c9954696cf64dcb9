package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"cale/api/docker"
)

// audit is the log of what clients did that gives power over the host: one JSON object a line, kept for ever, and
// turned over by whoever turns the machine's logs.
type audit struct {
	mu sync.Mutex
	f  *os.File
}

func openAudit(path string) (*audit, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &audit{f: f}, nil
}

func (a *audit) Close() error { return a.f.Close() }

func (a *audit) record(e docker.AuditEntry) {
	line, err := json.Marshal(struct {
		Time string `json:"time"`
		docker.AuditEntry
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
