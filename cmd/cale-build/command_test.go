package main

import (
	"io"
	"strings"
	"testing"

	"cale/build/command"
)

func TestAloneHoweverItIsWritten(t *testing.T) {
	for flag, want := range map[string]bool{
		"--daemonless": true, "--daemonless=1": true, "--daemonless=t": true, "--daemonless=true": true, "--daemonless=false": false, "--pull": false,
	} {
		c, err := command.Parse([]string{flag, "."}, io.Discard, command.Here)
		if err != nil {
			t.Fatal(err)
		}
		if c.Alone() != want {
			t.Errorf("%s: alone is %v", flag, c.Alone())
		}
	}
}

// TestNoBuilderAmongTheHostsMounts: a step could reach this program's file.
func TestNoBuilderAmongTheHostsMounts(t *testing.T) {
	_, _, err := here(t.Context(), settings{root: t.TempDir(), run: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "mount namespace of its own") {
		t.Errorf("opened: %v", err)
	}
	t.Setenv(mountsAreOwn, "1")
	if err := ownMounts(t.Context(), settings{alone: true}); err == nil {
		t.Error("a variable alone was believed")
	}
}

// TestNoEngine: that there is none is told before gRPC has words for it.
func TestNoEngine(t *testing.T) {
	t.Setenv("PATH", "")
	_, _, err := connect(t.Context(), t.TempDir(), t.TempDir(), false)
	if err == nil || !strings.HasPrefix(err.Error(), "connect to the engine: ") || strings.Contains(err.Error(), "rpc error") {
		t.Errorf("connected: %v", err)
	}
}
