package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/audit"
	"cale/engine"
)

// The Kubernetes CRI needs gRPC, whose code alone makes an idle process some 5 MiB larger. So there are two builds of
// this program: caled, and with the tag cri cale-cri, which serves the CRI too. caled --cri goes on as cale-cri.

// cri is the CRI's server in a program that has one.
type cri interface {
	Busy() bool
	Close()
}

// serveCRI starts the server; nil in a program without one.
var serveCRI func(e *engine.Engine, s settings, kept *audit.Log) (cri, error)

// becomeCRI replaces this program by the one that has the CRI.
func becomeCRI(args []string) error {
	path := ""
	if self, err := os.Executable(); err == nil {
		path = filepath.Join(filepath.Dir(self), "cale-cri")
	}
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("cale-cri"); err != nil {
			return fmt.Errorf("--cri needs the program cale-cri beside caled or in $PATH: %w", err)
		}
	}
	return fmt.Errorf("start %s: %w", path, unix.Exec(path, append([]string{path}, args...), os.Environ()))
}
