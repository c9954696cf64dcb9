package cri

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// configure writes a CNI configuration that is gone after the test.
func configure(t *testing.T, n *node, text string) {
	t.Helper()
	dir := filepath.Join(n.dir, "net.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "10-test.conflist")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
}

// plugin writes a CNI plug-in: a shell script.
func plugin(t *testing.T, n *node, name, script string) {
	t.Helper()
	dir := filepath.Join(n.dir, "cni")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
}

func networkReady(t *testing.T, n *node) (bool, string) {
	t.Helper()
	st, err := n.Status(n.ctx(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c := st.Status.Conditions[1]
	return c.Status, c.Message
}

// bridged is a network of Debian's plug-ins, with addresses booked in the node's own directory.
func bridged(n *node) (config, leases string) {
	leases = filepath.Join(n.dir, "leases")
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "crinet", "plugins": [{"type": "bridge", "bridge": "cri-%d", "isGateway": true,
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.213.0.0/24"}], [{"subnet": "fd00:213::/64"}]]}}]}`, os.Getpid(), leases), leases
}

func leased(t *testing.T, dir string) (out []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "crinet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if _, err := netip.ParseAddr(f.Name()); err == nil {
			out = append(out, f.Name())
		}
	}
	return out
}

// Pods are connected by the node's plug-ins, from the moment a configuration is there.
func testCNI(t *testing.T, n *node) {
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Skip("no CNI plug-ins here (containernetworking-plugins)")
	}
	config, leases := bridged(n)
	configure(t, n, config)
	t.Cleanup(func() { exec.Command("ip", "link", "del", fmt.Sprintf("cri-%d", os.Getpid())).Run() })
	if ok, why := networkReady(t, n); !ok {
		t.Error(why)
	}
	p := n.podConfig("plugged")
	id := n.pod(p)
	c := n.run(id, p, n.config("c", "sleep", "1000"))
	st, err := n.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	if ip := st.Status.Network.Ip; !strings.HasPrefix(ip, "10.213.0.") || len(st.Status.Network.AdditionalIps) != 1 {
		t.Errorf("%v", st.Status.Network)
	}
	if got := n.sh(c, "ip -o addr show dev eth0; cat /etc/hosts"); !strings.Contains(got, st.Status.Network.Ip+"/24") || !strings.Contains(got, st.Status.Network.Ip+"\tplugged") || !strings.Contains(got, "fd00:213::") {
		t.Errorf("%s", got)
	}
	if got := leased(t, leases); len(got) != 2 {
		t.Errorf("leases %v", got)
	}
	// It is known after a crash, and given back although the configuration is another one by then and, as after a
	// reboot, the namespace is gone.
	n.crash()
	after, err := n.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil || after.Status.Network.Ip != st.Status.Network.Ip {
		t.Errorf("after a crash: %v, %v", after, err)
	}
	configure(t, n, `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "not-there"}]}`)
	if ok, why := networkReady(t, n); ok || !strings.Contains(why, "not-there") {
		t.Errorf("a plug-in that is not installed: %v, %s", ok, why)
	}
	if err := unix.Unmount(filepath.Join(n.dir, "run", "pods", id, "net"), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if got := leased(t, leases); len(got) != 0 {
		t.Errorf("leases are left: %v", got)
	}
}

// A plug-in that fails or hangs is one pod's trouble, and keeps neither addresses nor the pod.
func testBadCNI(t *testing.T, n *node) {
	log := filepath.Join(n.dir, "calls")
	hold := filepath.Join(n.dir, "hold")
	plugin(t, n, "first", `cat > /dev/null; echo "first $CNI_COMMAND ${CNI_NETNS:+netns}" >> `+log+`
		echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}'`)
	plugin(t, n, "last", `cat > /dev/null; echo "last $CNI_COMMAND $CNI_ARGS" >> `+log+`
		if [ $CNI_COMMAND = DEL ] && [ -e `+hold+` ]; then echo '{"code": 11, "msg": "later"}'; exit 1; fi
		[ $CNI_COMMAND = DEL ] && exit 0
		case $CNI_ARGS in *slow*) while [ ! -e `+hold+` ]; do sleep 0.05; done;; esac
		echo '{"code": 7, "msg": "no luck", "details": "none at all"}'; exit 1`)
	configure(t, n, `{"cniVersion": "1.0.0", "name": "bad", "plugins": [{"type": "first"}, {"type": "last"}]}`)
	p := n.podConfig("fails")
	_, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p})
	if err == nil || !strings.Contains(err.Error(), "no luck: none at all") {
		t.Fatal(err)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(calls)), "\n"); len(lines) != 4 || lines[0] != "first ADD netns" || !strings.HasPrefix(lines[1], "last ADD") ||
		!strings.Contains(lines[1], "K8S_POD_NAME=fails") || !strings.HasPrefix(lines[2], "last DEL") || lines[3] != "first DEL netns" {
		t.Errorf("%s", calls)
	}
	if list, err := n.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{}); err != nil || find(list.Items, "fails") != nil {
		t.Errorf("the pod is there: %v, %v", list, err)
	}
	// What can't be given back yet is tried again when the pod is stopped.
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p}); err == nil {
		t.Fatal("it was made")
	}
	list, err := n.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	left := find(list.Items, "fails")
	if left == nil || left.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Fatalf("%v", list)
	}
	if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: left.Id}); err == nil || !strings.Contains(err.Error(), "later") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: left.Id}); err != nil {
		t.Error(err)
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: left.Id}); err != nil {
		t.Error(err)
	}
	// While one plug-in hangs, the node goes on.
	slow := n.podConfig("slow")
	ended := make(chan error, 1)
	go func() {
		_, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: slow})
		ended <- err
	}()
	stack.Until(t, "the plug-in hangs", func() bool {
		raw, _ := os.ReadFile(log)
		return strings.Contains(string(raw), "K8S_POD_NAME=slow")
	})
	host := n.podConfig("beside")
	host.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	n.run(n.pod(host), host, n.config("c", "true"))
	plugin(t, n, "last", "cat > /dev/null") // which is how DEL finds it
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a pod was made without a network")
	}
}

func find(list []*runtimeapi.PodSandbox, name string) *runtimeapi.PodSandbox {
	for _, p := range list {
		if p.Metadata.Name == name {
			return p
		}
	}
	return nil
}

// A configuration that makes no sense is no reason to connect pods otherwise.
func testNoCNI(t *testing.T, n *node) {
	for text, want := range map[string]string{
		"{":                                "10-test.conflist",
		`{"plugins": []}`:                  "no name of a network",
		`{"name": "x", "type": "/bin/sh"}`: "no plug-in's name",
		`{"name": "x", "plugins": [{"type": "../../bin/sh"}]}`: "no plug-in's name",
	} {
		configure(t, n, text)
		if ok, why := networkReady(t, n); ok || !strings.Contains(why, want) {
			t.Errorf("%s: %v, %q", text, ok, why)
		}
		if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("none")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	// Ports of the host need a plug-in that knows of them.
	plugin(t, n, "plain", "exit 0")
	configure(t, n, `{"name": "x", "type": "plain"}`)
	p := n.podConfig("ports")
	p.PortMappings = []*runtimeapi.PortMapping{{HostPort: 12345, ContainerPort: 80}}
	if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p}); err == nil || !strings.Contains(err.Error(), "portmap") {
		t.Error(err)
	}
}

// When it starts, plug-ins are told which pods there are, and give back what others left. What is under way with them
// then keeps no pod waiting.
func testCollectCNI(t *testing.T, n *node) {
	log, hold := filepath.Join(n.dir, "collected"), filepath.Join(n.dir, "holdgc")
	plugin(t, n, "collects", `in=$(cat); case $CNI_COMMAND in
		GC) echo "$in" >> `+log+`; while [ -e `+hold+` ]; do sleep 0.05; done;;
		ADD) echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.9.9/24"}]}';; esac`)
	const config = `{"cniVersion": "1.0.0", "cniVersions": ["1.1.0"], "name": "gc", %s "plugins": [{"type": "collects"}]}`
	configure(t, n, fmt.Sprintf(config, ""))
	p := n.podConfig("stays")
	id := n.pod(p)
	gone := n.pod(n.podConfig("goes"))
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: gone}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.crash()
	told := func() string {
		raw, _ := os.ReadFile(log)
		return string(raw)
	}
	stack.Until(t, "plug-ins are told", func() bool { return told() != "" })
	if got := told(); strings.Count(got, `[{"containerID":"`+id+`","ifname":"eth0"}]`) != 2 || strings.Contains(got, gone) || !strings.Contains(got, `"cniVersion":"1.1.0"`) {
		t.Errorf("told %s", got)
	}
	n.pod(n.podConfig("next"))
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	configure(t, n, fmt.Sprintf(config, `"disableGC": true,`))
	n.crash()
	if n.pod(n.podConfig("last")); told() != "" {
		t.Errorf("told against the configuration: %s", told())
	}
}
