package main

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// hold is the first process of a pid namespace that containers share: it reaps what they leave behind, until it is
// killed.
func hold() error {
	if os.Getpid() != 1 {
		return errors.New("hold: this is for the first process of a pid namespace")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	for range c {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
		}
	}
	return nil
}
