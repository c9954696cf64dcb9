package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/network"
)

// victim is what a process does that is to be killed: it runs containers of every kind, several at once.
func victim(root, run, shim string) {
	ctx := context.Background()
	e, err := Open(ctx, Config{Root: root, Run: run, Shim: shim})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("open")
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				s := Spec{Image: "busybox", Cmd: []string{"sh", "-c", "exit 3"}, Network: Network{Mode: []string{"none", "bridge"}[n%2]},
					AutoRemove: i%2 == 0, AnonymousVolumes: []string{"/v"}}
				id, _, err := e.Create(ctx, s)
				if err != nil {
					continue
				}
				done, err := e.Wait(ctx, id, "next-exit")
				if err != nil {
					continue
				}
				if e.Start(ctx, id, StartOptions{}) == nil {
					<-done
				}
				if i == 1 {
					e.Remove(ctx, id, RemoveOptions{Force: true, Volumes: true})
				}
			}
		}()
	}
	select {}
}

// Whatever instruction an engine is killed at, the next one finds its way, and leaves nothing.
func TestEngineKilled(t *testing.T) {
	b := newBench(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "ENGINE_VICTIM="+strings.Join([]string{b.conf.Root, b.conf.Run, shimPath}, ":"))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 16)); n == 0 {
			t.Fatalf("the victim did not open its engine: %v", err)
		}
		time.Sleep(time.Duration(200+rand.IntN(1200)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		b.open()
		b.until("the end of all", func() bool { return !b.Busy() })
		for _, c := range b.List(ctx, false) {
			if c.State.Status == Running || c.State.Status == Restarting {
				t.Errorf("container %s is %s", c.ID, c.State.Status)
			}
			if c.State.Status == Exited && c.State.ExitCode != 3 && c.State.ExitCode != 137 && c.State.ExitCode != 128 {
				t.Errorf("container %s ended with %d", c.ID, c.State.ExitCode)
			}
			if err := b.Remove(ctx, c.ID, RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		b.nothingLeft()
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	b.open()
}

// nothingLeft checks the kernel and the disk for what no container owns any more.
func (b *bench) nothingLeft() {
	b.t.Helper()
	b.trash.Wait()
	for _, p := range []string{"run/pods/*", "root/containers/*", "root/trash/*", "root/volumes/.*", "run/tree-*", "run/view-*"} {
		if left, _ := filepath.Glob(filepath.Join(b.dir, p)); len(left) > 0 {
			b.t.Errorf("left: %v", left)
		}
	}
	b.until("the end of all shims", func() bool {
		left, err := exec.Command("pgrep", "-f", "cale-shim .*"+b.dir+"/").Output()
		return err != nil && len(left) == 0
	})
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + b.cfg.CgroupParent + "/*/")
	if len(groups) > 0 {
		b.t.Errorf("control groups left: %v", groups)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), b.dir) {
		b.t.Errorf("mounts left below %s (%v)", b.dir, err)
	}
	if i, err := b.nets.Inspect(network.Bridge); err == nil && len(i.Endpoints) > 0 {
		b.t.Errorf("%d endpoints left", len(i.Endpoints))
	}
	if vols, _ := b.Volumes(ctx); len(vols) > 0 {
		b.t.Logf("%d anonymous volumes of containers that were being made", len(vols))
		for _, v := range vols {
			b.VolumeRemove(ctx, v.Name, true)
		}
	}
}
