package cri

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A kubelet is told the same of a container that runs and one that has ended: the image as its user named it, and
// whose its process was.
func testStatusAfterwards(t *testing.T, n *node) {
	p := n.podConfig("afterwards")
	pod := n.pod(p)
	st, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: n.image}})
	if err != nil {
		t.Fatal(err)
	}
	c := n.config("c", "true")
	c.Image = &runtimeapi.ImageSpec{Image: st.Image.Id, UserSpecifiedImage: n.image}
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 1000},
		RunAsGroup: &runtimeapi.Int64Value{Value: 1001}, SupplementalGroups: []int64{2000}}}
	id := n.run(pod, p, c)
	got := n.exited(id)
	if got.Image.Image != n.image || got.ImageRef != st.Image.Id || got.Reason != "Completed" {
		t.Errorf("%v", got)
	}
	if u := got.User.GetLinux(); u.GetUid() != 1000 || u.GetGid() != 1001 || !slices.Contains(u.GetSupplementalGroups(), 2000) {
		t.Errorf("user %v", u)
	}
	r, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: n.config("none", "/no/such"), SandboxConfig: p})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err == nil {
		t.Error("a command that isn't there was started")
	}
	if got := n.status(r.ContainerId); got.Reason != "StartError" || got.ExitCode != 128 || !strings.Contains(got.Message, "/no/such") {
		t.Errorf("%v", got)
	}
}

// Paths are masked that are named, and no others: procMount is Unmasked by naming none.
func testMasked(t *testing.T, n *node) {
	p := n.podConfig("masked")
	pod := n.pod(p)
	for name, masked := range map[string][]string{"none": nil, "one": {"/proc/keys"}} {
		c := n.config(name, "sleep", "1000")
		c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{MaskedPaths: masked}}
		if got := n.sh(n.run(pod, p, c), "grep -c ' /proc/' /proc/mounts || true"); got != string('0'+rune(len(masked))) {
			t.Errorf("%s: %s mounts below /proc", name, got)
		}
	}
}

// A propagation that the host's mount takes no part in is refused: it would silently not be.
func testPropagation(t *testing.T, n *node) {
	private := filepath.Join(n.dir, "private")
	if err := unix.Mkdir(private, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", private, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(private, unix.MNT_DETACH)
	p := n.podConfig("propagation")
	p.Linux.SecurityContext.Privileged = true
	pod := n.pod(p)
	for _, test := range []struct {
		host uintptr
		ask  runtimeapi.MountPropagation
		can  bool
	}{
		{unix.MS_PRIVATE, runtimeapi.MountPropagation_PROPAGATION_PRIVATE, true},
		{unix.MS_PRIVATE, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, false},
		{unix.MS_PRIVATE, runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, false},
		{unix.MS_SHARED, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, true},
		{unix.MS_SHARED, runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, true},
	} {
		if err := unix.Mount("", private, "", test.host, ""); err != nil {
			t.Fatal(err)
		}
		c := n.config("c", "true")
		c.Mounts = []*runtimeapi.Mount{{HostPath: private, ContainerPath: "/m", Propagation: test.ask}, {HostPath: filepath.Join(private, "made"), ContainerPath: "/n", Propagation: test.ask}}
		r, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: p})
		if test.can != (err == nil) || !test.can && status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v on a mount that is %x: %v", test.ask, test.host, err)
		}
		if err == nil {
			n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: r.ContainerId})
		}
	}
}
