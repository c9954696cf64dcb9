package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cale/network"
	"cale/test/stack"
)

// mixedClients work at once.
const mixedClients = 10

// TestKilledUnderLoad kills the engine, and now and then a supervisor, at random moments while ten clients do all kinds
// of things with containers, networks and volumes. Afterwards every container is what the API says it is, all can be
// taken away, and the kernel holds nothing of it. CALE_OPERATIONS says how many operations; the full test has 200.
func TestKilledUnderLoad(t *testing.T) {
	operations := 60
	if n, err := strconv.Atoi(os.Getenv("CALE_OPERATIONS")); err == nil {
		operations = n
	}
	s := stack.New(t)
	s.Cale("pull", "-q", s.Busybox()).OK(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)

	ctx, stop := context.WithCancel(t.Context())
	var clients, killer sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(operations))
	for client := range mixedClients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				mixedOperation(s, random, client)
			}
		})
	}
	kills, deaths := 0, 0
	killer.Go(func() {
		random := rand.New(rand.NewPCG(seed, 1000))
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(20+random.IntN(500)) * time.Millisecond):
			}
			if random.IntN(3) == 0 {
				if pids := supervisors(s); len(pids) > 0 {
					_ = syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL)
					deaths++
				}
			}
			if pid := s.PID(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				kills++
			}
		}
	})
	clients.Wait()
	stop()
	killer.Wait()
	t.Logf("%d operations, the engine was killed %d times, supervisors %d times", operations, kills, deaths)

	// What the API says is what the kernel has.
	s.Cale("ps").OK(t)
	time.Sleep(time.Second) // restarts that were planned
	asExpected := func() (wrong string) {
		ids := strings.Fields(s.Cale("ps", "-aq", "--no-trunc").OK(t))
		for _, id := range ids {
			var list []struct {
				State struct {
					Status string
					Pid    int
				}
			}
			r := s.Cale("inspect", id)
			if r.Code != 0 {
				continue // removed meanwhile, by --rm
			}
			if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil || len(list) != 1 {
				t.Fatalf("%s: %v", r.Stdout, err)
			}
			st := list[0].State
			group, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", st.Pid))
			lives := st.Pid != 0 && strings.Contains(string(group), id)
			if should := st.Status == "running" || st.Status == "paused"; lives != should {
				wrong = fmt.Sprintf("%s is %s, its process %d: %v", id[:12], st.Status, st.Pid, lives)
			}
		}
		pods, _ := os.ReadDir(filepath.Join(s.Run, "pods"))
		for _, p := range pods {
			if !slices.Contains(ids, p.Name()) {
				wrong = "the bundle of " + p.Name() + " is left"
			}
		}
		return wrong
	}
	wrong := ""
	stack.Until(t, "all is as the API says", func() bool { wrong = asExpected(); return wrong == "" || t.Failed() })
	if wrong != "" {
		t.Error(wrong)
	}

	for _, ids := range [][]string{strings.Fields(s.Cale("ps", "-aq").OK(t))} {
		if len(ids) > 0 {
			s.Cale(append([]string{"rm", "-f", "-v"}, ids...)...).OK(t)
		}
	}
	s.Cale("network", "prune", "-f").OK(t)
	s.Cale("volume", "prune", "-af").OK(t)
	if out := s.Cale("volume", "ls", "-q").OK(t); out != "" {
		t.Errorf("volumes are left: %s", out)
	}
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
	pid := s.PID()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stack.Until(t, "the engine has ended", func() bool { return s.PID() == 0 })
	var things []string
	deadline := time.Now().Add(20 * time.Second)
	for things = leftBehind(t, s); len(things) > 0 && time.Now().Before(deadline); things = leftBehind(t, s) {
		time.Sleep(100 * time.Millisecond)
	}
	for _, thing := range things {
		t.Errorf("left behind: %s", thing)
	}
}

// mixedOperation does one thing; the engine may die under it, so it may fail.
func mixedOperation(s *stack.Stack, random *rand.Rand, client int) {
	name := fmt.Sprintf("box%d-%d", client, random.IntN(3))
	net, volume := fmt.Sprint("net", random.IntN(3)), fmt.Sprint("vol", random.IntN(3))
	long := []string{"sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"}
	image := s.Busybox()
	switch random.IntN(16) {
	case 0, 1:
		s.Cale("run", "--rm", image, "echo", "hello")
	case 2:
		s.Cale(append([]string{"run", "-d", "--name", name, image}, long...)...)
	case 3:
		s.Cale(append([]string{"run", "-d", "--name", name, "-p", "127.0.0.1::80", "-v", volume + ":/data", image}, long...)...)
	case 4:
		s.Cale(append([]string{"run", "-d", "--name", name, "--restart", "always", image}, long...)...)
	case 5:
		s.Cale("network", "create", net)
		s.Cale(append([]string{"run", "-d", "--name", name, "--network", net, image}, long...)...)
	case 6:
		s.Cale("run", "-d", "--rm", "--name", name, image, "sleep", "0.3")
	case 7:
		s.Cale("exec", name, "echo", "in")
	case 8:
		s.Cale("stop", name)
	case 9:
		s.Cale("restart", "-t", "1", name)
	case 10:
		s.Cale("pause", name)
		s.Cale("unpause", name)
	case 11:
		s.Cale("kill", name)
	case 12:
		s.Cale("network", "connect", net, name)
		s.Cale("network", "disconnect", net, name)
	case 13:
		s.Cale("cp", name+":/etc/passwd", "-")
	case 14:
		s.Cale("commit", name, "out:"+name)
	default:
		s.Cale("rm", "-f", name)
	}
}

func supervisors(s *stack.Stack) (pids []int) {
	pods, _ := os.ReadDir(filepath.Join(s.Run, "pods"))
	for _, p := range pods {
		if pid := s.Supervisor(p.Name()); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// leftBehind lists what the kernel has of a Cale that has nothing any more.
func leftBehind(t *testing.T, s *stack.Stack) (things []string) {
	t.Helper()
	dir := filepath.Dir(s.Run)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			things = append(things, "mount "+strings.TrimSpace(line))
		}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent := s.CgroupParent()
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		group, _ := os.ReadFile("/proc/" + p.Name() + "/cgroup")
		cwd, _ := os.Readlink("/proc/" + p.Name() + "/cwd")
		if p.Name() != strconv.Itoa(os.Getpid()) && (bytes.Contains(cmd, []byte(dir+"/")) || bytes.Contains(group, []byte("/"+parent)) || strings.HasPrefix(cwd, dir+"/")) {
			things = append(things, "process "+p.Name()+" "+string(bytes.ReplaceAll(cmd, []byte{0}, []byte(" "))))
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + parent + "*")
	more, _ := filepath.Glob("/sys/fs/cgroup/" + parent + "*")
	for _, g := range append(groups, more...) {
		things = append(things, "cgroup "+g)
	}
	instance := network.InstanceName(s.Run)
	if out := s.Do("", "nft", "list", "tables").Stdout; strings.Contains(out, instance) {
		things = append(things, "nftables table "+instance)
	}
	if out := s.Do("", "ip", "-o", "link").Stdout; strings.Contains(out, instance) {
		things = append(things, "links:\n"+out)
	}
	return things
}
