package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Containerd starts the one in PATH, with all its state below Dir. Its command line, ctr, has verbs of its own.
func Containerd(ctx context.Context) (s *Stack, stop func(), err error) {
	dir := Dir + "/containerd"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", dir+"/root", dir+"/run", dir+"/sock")
	if err := os.WriteFile(dir+"/config.toml", []byte(conf), 0o600); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("containerd", "-c", dir+"/config.toml")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	removed := leaves("/default") // which its containers are in, after its namespace
	stop = func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		removed()
	}
	s = &Stack{Name: "ctr", Command: []string{"ctr", "-a", dir + "/sock"},
		Daemons: []string{"containerd"}, Shims: []string{"containerd-shim-runc-v2"}}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err = s.Run(ctx, "version"); err == nil {
			return s, stop, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			stop()
			return nil, nil, err
		}
	}
}
