package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxComplaint bounds what is kept of a plug-in's standard error.
const maxComplaint = 4 << 10

// Error is a plug-in's refusal. Codes below 100 are the specification's.
type Error struct {
	Code    uint   `json:"code"`
	Message string `json:"msg"`
	Details string `json:"details"`
}

func (e *Error) Error() string {
	text := e.Message
	if e.Details != "" {
		text += ": " + e.Details
	}
	if text == "" {
		text = fmt.Sprintf("error %d", e.Code)
	}
	return text
}

// ErrNoPlugin is a plug-in that is not installed.
var ErrNoPlugin = errors.New("plug-in is not installed")

// find looks a plug-in up in the directories of plug-ins.
func find(name string, dirs []string) (string, error) {
	for _, d := range dirs {
		path := filepath.Join(d, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("CNI %w: %s in %s", ErrNoPlugin, name, strings.Join(dirs, ", "))
}

// call runs a plug-in and gives what it answers.
func call(ctx context.Context, name string, dirs []string, command string, a *Attachment, stdin []byte) ([]byte, error) {
	path, err := find(name, dirs)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "CNI_COMMAND="+command, "CNI_PATH="+strings.Join(dirs, ":"))
	if a != nil {
		env = append(env, "CNI_CONTAINERID="+a.ID, "CNI_NETNS="+a.NetNS, "CNI_IFNAME="+a.Interface, "CNI_ARGS="+a.args())
	}
	var out, complaint bounded
	out.max, complaint.max = maxConfig, maxComplaint
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, "/", bytes.NewReader(stdin), &out, &complaint
	// A plug-in that is ended takes the plug-ins that it calls along, and what they leave behind holds nobody up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	for try := 0; ; try++ {
		err = cmd.Start()
		if !errors.Is(err, unix.ETXTBSY) || try == 5 { // just being installed
			break
		}
		time.Sleep(time.Second / 5)
		again := *cmd
		cmd = &again
	}
	if err == nil {
		err = cmd.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("CNI plug-in %s: %s did not end in time: %w", name, command, ctx.Err())
	case err == nil && out.over:
		return nil, fmt.Errorf("CNI plug-in %s: its answer is larger than 1 MiB", name)
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out.Bytes(), nil
	}
	var refusal Error
	if json.Unmarshal(out.Bytes(), &refusal) == nil && (refusal.Code != 0 || refusal.Message != "") {
		return nil, fmt.Errorf("CNI plug-in %s: %s: %w", name, command, &refusal)
	}
	return nil, fmt.Errorf("CNI plug-in %s: %s: %w: %s", name, command, err, strings.TrimSpace(complaint.String()+" "+out.String()))
}

// bounded keeps the first bytes of what is written.
type bounded struct {
	bytes.Buffer
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if left := b.max - b.Len(); left < len(p) {
		b.over = true
		b.Buffer.Write(p[:max(left, 0)])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
