package engine

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/network"
	"cale/runtime/linux"
)

// Containers with --userns=auto get ids of the host that nobody else has: from the ranges that subuid(5) gives to
// "cale" or "containers", as Podman reads them, or else from what systemd leaves to container managers
// (https://systemd.io/UIDS-GIDS), the half of it that systemd-nspawn takes last.
const (
	autoIDs     = 65536 // as many as one container gets if it doesn't say
	firstAutoID = 0x40000000
	endOfAutoID = 0x6fff0000
	maxSubIDs   = 1 << 20 // bytes of a subuid file that are read
)

// userNamespaceSize reads the mode of a user namespace: "" or host, where the size is 0, or auto[:size=N].
func userNamespaceSize(mode string) (uint32, error) {
	if mode == "" || mode == "host" {
		return 0, nil
	}
	kind, options, _ := strings.Cut(mode, ":")
	if kind != "auto" {
		return 0, invalid("invalid USER mode: %s (it can be host, auto or auto:size=N)", mode)
	}
	if options == "" {
		return autoIDs, nil
	}
	text, ok := strings.CutPrefix(options, "size=")
	size, err := strconv.ParseUint(text, 10, 32)
	if !ok || err != nil || size == 0 || size > endOfAutoID-firstAutoID {
		return 0, invalid("invalid USER mode: %s: auto takes size=N, the number of ids, at most %d", mode, endOfAutoID-firstAutoID)
	}
	return uint32(size), nil
}

// checkUserNamespace refuses what can't be had from inside a user namespace.
func (e *Engine) checkUserNamespace(s *Spec) error {
	size, err := userNamespaceSize(s.UsernsMode)
	if err != nil || size == 0 {
		return err
	}
	for _, n := range []struct{ name, mode string }{{"network", s.Network.Mode}, {"PID", s.PidMode}, {"IPC", s.IpcMode}, {"UTS", s.UTSMode}} {
		if n.mode == "host" || strings.HasPrefix(n.mode, "container:") {
			return invalid("cannot share the %s namespace of the host or of a container when user namespaces are enabled", n.name)
		}
	}
	if s.Security.Privileged {
		return invalid("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	}
	t, err := e.runtimeFor(s.Runtime)
	switch {
	case err != nil:
		return err
	case t.oci != "":
		return fail(ErrUnsupported, "runtime %s: containers with user namespaces of their own run with Cale's own runtime only", s.Runtime)
	case !MapsOwners():
		return fail(ErrUnsupported, "--userns=%s: the kernel can't map the owners of an overlay's files (Linux 5.19)", s.UsernsMode)
	}
	return nil
}

// takeIDs gives a container the mapping that its Spec asks for, or nil. The ids are its own until giveIDs.
func (e *Engine) takeIDs(s *Spec, id string) (*IDMap, error) {
	size, err := userNamespaceSize(s.UsernsMode)
	if err != nil || size == 0 {
		return nil, err
	}
	free, err := subordinate()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.takenIDs()
	for _, r := range free {
		first := uint64(r.Host)
		for _, other := range taken {
			if uint64(other.Host) >= first+uint64(size) {
				break // before it there is room
			}
			first = max(first, uint64(other.Host)+uint64(other.Size))
		}
		if first+uint64(size) <= uint64(r.Host)+uint64(r.Size) {
			mine := IDRange{Host: uint32(first), Size: size}
			e.ids[id] = mine
			return &IDMap{UIDs: []IDRange{mine}, GIDs: []IDRange{mine}}, nil
		}
	}
	return nil, conflict("no range of %d ids is free for a user namespace: other containers have them", size)
}

// takenIDs lists what containers and pods have, the lowest first. It needs mu.
func (e *Engine) takenIDs() []IDRange {
	list := slices.Collect(maps.Values(e.ids))
	for _, p := range e.pods {
		if m := p.spec().User; m != nil {
			list = append(append(list, m.UIDs...), m.GIDs...)
		}
	}
	slices.SortFunc(list, func(a, b IDRange) int { return cmp.Compare(a.Host, b.Host) })
	return list
}

// giveIDs is for a container that is gone.
func (e *Engine) giveIDs(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ids, id)
}

// subordinate are the ranges of the host that containers' ids are taken from: those which are both users' and groups'.
func subordinate() ([]IDRange, error) {
	var lists [2][]IDRange
	for i, name := range []string{"subuid", "subgid"} {
		list, err := readSubordinate(filepath.Join("/etc", name))
		if err != nil {
			return nil, err
		}
		lists[i] = list
	}
	if len(lists[0]) == 0 || len(lists[1]) == 0 {
		return []IDRange{{Host: firstAutoID, Size: endOfAutoID - firstAutoID}}, nil
	}
	var both []IDRange
	for _, u := range lists[0] {
		for _, g := range lists[1] {
			first, end := max(u.Host, g.Host), min(uint64(u.Host)+uint64(u.Size), uint64(g.Host)+uint64(g.Size))
			if uint64(first) < end {
				both = append(both, IDRange{Host: first, Size: uint32(end - uint64(first))})
			}
		}
	}
	return both, nil
}

// readSubordinate reads what a file as subuid(5) gives containers.
func readSubordinate(path string) ([]IDRange, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []IDRange
	lines := bufio.NewScanner(f)
	for read := 0; lines.Scan() && read < maxSubIDs; read += len(lines.Bytes()) + 1 {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 || parts[0] != "cale" && parts[0] != "containers" {
			continue
		}
		first, err1 := strconv.ParseUint(parts[1], 10, 32)
		size, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 != nil || err2 != nil || first == 0 || size == 0 || first+size > 1<<32-1 {
			return nil, fmt.Errorf("%s: %q gives no range of ids", path, lines.Text())
		}
		out = append(out, IDRange{Host: uint32(first), Size: uint32(size)})
	}
	return out, lines.Err()
}

// pinUser makes a container's user namespace and a network namespace of it.
func (c *container) pinUser() error {
	at := func(kind string) string { return filepath.Join(c.pod, kind) }
	if err := c.idMap().pin(map[string]uint64{"net": unix.CLONE_NEWNET}, at, nil, nil); err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	net, err := os.Open(at("net"))
	if err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	defer net.Close()
	return linux.InNamespace(net, unix.CLONE_NEWNET, network.LoopbackUp)
}

// ociUser puts a container that is a pod of its own into its user namespace.
func (c *container) ociUser(spec *specs.Spec) {
	ids := c.idMap()
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: c.userNS()})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ociIDs(ids.UIDs), ociIDs(ids.GIDs)
}
