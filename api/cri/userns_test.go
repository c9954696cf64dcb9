package cri

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const mappedTo = 1_000_000 // the host's id of the tests' user namespaces' root

func mappedPod(n *node, name string) *runtimeapi.PodSandboxConfig {
	p := n.podConfig(name)
	ids := []*runtimeapi.IDMapping{{HostId: mappedTo, Length: 65536}}
	p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	return p
}

// A pod in a user namespace: its root is nobody on the host, and yet owns what root owns in images, volumes and the
// container's own files, which are kept unshifted.
func testUserNamespace(t *testing.T, n *node) {
	p := mappedPod(n, "mapped")
	p.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	p.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "7"}
	id := n.pod(p)
	dir := filepath.Join(n.dir, "vol")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := n.config("c", "sleep", "1000")
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: p.Linux.SecurityContext.NamespaceOptions}}
	u := p.Linux.SecurityContext.NamespaceOptions.UsernsOptions
	c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/vol", UidMappings: u.Uids, GidMappings: u.Gids},
		{ContainerPath: "/img", Readonly: true, Image: &runtimeapi.ImageSpec{Image: n.image}}}
	cid := n.run(id, p, c)
	if got := strings.Fields(n.sh(cid, "cat /proc/self/uid_map")); strings.Join(got, " ") != "0 1000000 65536" {
		t.Errorf("mapping %q", got)
	}
	script := `set -e
		for f in / /bin/sh /vol /img/bin /etc/hosts /etc/resolv.conf /dev/shm; do stat -c "%n %u:%g" $f; done
		touch /root-file /vol/file && mkdir /d && rm -r /etc/passwd && touch /user-file && chown 5:6 /user-file /vol/file && echo x > /dev/shm/x
		cat /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname; ip addr show lo | grep -c LOOPBACK,UP`
	want := "/ 0:0\n/bin/sh 0:0\n/vol 0:0\n/img/bin 0:0\n/etc/hosts 0:0\n/etc/resolv.conf 0:0\n/dev/shm 0:0\n7\nmapped\n1"
	if got := n.sh(cid, script); got != want {
		t.Errorf("%s", got)
	}
	owner := func(path string) [2]uint32 {
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			t.Error(err)
		}
		return [2]uint32{st.Uid, st.Gid}
	}
	upper := filepath.Join(n.dir, "root", "containers", cid, "upper")
	for path, want := range map[string][2]uint32{filepath.Join(dir, "file"): {5, 6}, filepath.Join(upper, "user-file"): {5, 6}, filepath.Join(upper, "root-file"): {0, 0}} {
		if got := owner(path); got != want {
			t.Errorf("%s belongs to %v on the host, not to %v", path, got, want)
		}
	}
	v, err := n.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: cid, Verbose: true})
	if err != nil || v.Status.User.GetLinux().GetUid() != 0 {
		t.Errorf("%v, %v", v, err)
	}
	// The first process of the shared namespace is no root of the host either.
	if got := n.sh(cid, "grep ^Uid: /proc/1/status"); got != "Uid:\t0\t0\t0\t0" {
		t.Errorf("the holder: %q", got)
	}
	n.crash()
	if got := n.sh(cid, "cat /dev/shm/x"); got != "x" {
		t.Errorf("after a crash: %q", got)
	}
	n.run(id, p, n.config("later", "true"))
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "run", "pods", id)); err == nil {
		t.Error("the pod's directory is still there")
	}
}

func testUserNamespaceHostNetwork(t *testing.T, n *node) {
	p := mappedPod(n, "mapped-host")
	p.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	c := n.run(n.pod(p), p, n.config("c", "sleep", "1000"))
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.sh(c, "readlink /proc/self/ns/net; id -u; ls /sys/class/net/lo/mtu; ! touch /sys/x 2>/dev/null"); got != own+"\n0\n/sys/class/net/lo/mtu" {
		t.Errorf("%q", got)
	}
}

func testUserNamespaceRefused(t *testing.T, n *node) {
	for name, change := range map[string]func(*runtimeapi.NamespaceOption){
		"no mapping": func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids = nil },
		"no root": func(o *runtimeapi.NamespaceOption) {
			o.UsernsOptions.Gids = []*runtimeapi.IDMapping{{ContainerId: 1, HostId: 5, Length: 1}}
		},
		"beyond ids": func(o *runtimeapi.NamespaceOption) {
			o.UsernsOptions.Gids = []*runtimeapi.IDMapping{{HostId: 1<<32 - 5, Length: 10}}
		},
		"host's pids": func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_NODE },
	} {
		p := mappedPod(n, "refused")
		change(p.Linux.SecurityContext.NamespaceOptions)
		if _, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := n.podConfig("unmapped")
	id := n.pod(p)
	c := n.config("c", "true")
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: mappedPod(n, "x").Linux.SecurityContext.NamespaceOptions}}
	if _, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: c, SandboxConfig: p}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another user namespace than the pod's: %v", err)
	}
}
