package criu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Ask(context.Background(), Request{Type: Version})
	if !errors.Is(err, ErrNotInstalled) || !strings.HasPrefix(err.Error(), "criu is not installed: ") {
		t.Error(err)
	}
}

// A program of that name which isn't CRIU, or dies, is an error and not an end of the caller.
func TestNotCRIU(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	_, err := Ask(context.Background(), Request{Type: Version})
	if err == nil || !strings.Contains(err.Error(), "criu") {
		t.Error(err)
	}
}

// One that hangs ends when nobody waits for it any more.
func TestHungCRIU(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs sleep")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\nexec "+sleep+" 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	defer func(d time.Duration) { grace = d }(grace)
	grace = 10 * time.Millisecond
	c, err := Start(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Do(ctx, Request{Type: Version}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.Close(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
}

func TestVersion(t *testing.T) {
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu")
	}
	r, err := Ask(context.Background(), Request{Type: Version})
	if err != nil || r.Version < 30000 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What CRIU refuses comes with its own reason.
func TestRefused(t *testing.T) {
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu")
	}
	dir := t.TempDir()
	c, err := Start(context.Background(), Config{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(context.Background(), Request{Type: Restore, Options: &Options{LogFile: "log", LogLevel: 4}}, nil)
	c.Close()
	if err == nil || !strings.Contains(err.Error(), "criu failed: type RESTORE") {
		t.Error(err)
	}
	if log, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || !strings.Contains(string(log), "Error") {
		t.Errorf("log: %v", err)
	}
}
