package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	b := newBench(t)
	out, code := b.run(sh("echo out; echo err >&2; exit 3"))
	if !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") || code != 3 {
		t.Fatalf("output %q, code %d", out, code)
	}
}

func TestStartErrors(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if _, _, err := b.Create(ctx, Spec{Image: "nothere"}); !errors.Is(err, ErrNoSuchImage) || err.Error() != "No such image: nothere:latest" {
		t.Errorf("missing image: %v", err)
	}
	id := b.create(Spec{Cmd: []string{"nothere"}, Network: Network{Mode: "none"}})
	err := b.Start(ctx, id, StartOptions{})
	if err == nil || !strings.Contains(err.Error(), `exec: "nothere": executable file not found in $PATH`) {
		t.Errorf("missing command: %v", err)
	}
	info, err := b.Inspect(ctx, id, false)
	if err != nil || info.State.Status != Created || info.State.ExitCode != 127 || info.State.Error == "" {
		t.Errorf("state %+v, %v", info.State, err)
	}
	if _, err := b.Inspect(ctx, "nothere", false); err == nil || err.Error() != "No such container: nothere" {
		t.Errorf("missing container: %v", err)
	}
}
