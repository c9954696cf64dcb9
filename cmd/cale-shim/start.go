package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cale/runtime/linux"
	"cale/shim"
	"cale/shim/stdio"
	"cale/shim/supervisor"
	"cale/shim/task"
	"cale/wire"
)

// socketDir holds the sockets of shims that containerd starts: a bundle's path
// may be too long for a socket address.
const socketDir = "/run/cale-shim"

// groupKeys are the annotations by which containers share a shim: containers of
// one pod.
var groupKeys = []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}

// start makes the shim proper, or finds the one of the pod, and prints its
// address for containerd. It runs in the bundle.
func start(o options) error {
	if pod := group(); pod != "" && pod != o.id {
		// Bundles of one namespace lie side by side.
		if address, ok := serving(filepath.Join("..", pod, "address")); ok {
			return announce(address)
		}
	}
	if err := os.MkdirAll(socketDir, 0o700); err != nil {
		return err
	}
	// The name is random: clients learn it from the address file.
	dir, err := os.MkdirTemp(socketDir, "")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "s")
	fd, err := stdio.ListenFD(path)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	program, err := linux.OpenProgram(self)
	if err != nil {
		os.RemoveAll(dir)
		return err
	}
	defer program.Close()
	argv := []string{"cale-shim", "-namespace", o.namespace, "-id", o.id, "-socket", path, shim.ServeAction}
	_, err = syscall.ForkExec(program.Path, argv, &syscall.ProcAttr{
		Env:   append(os.Environ(), shim.SmallEnv()...),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(fd)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		os.RemoveAll(dir)
		return err
	}
	return announce("unix://" + path)
}

// serving reads the address of a shim that containerd had started, "" for any
// other, and tells whether one listens there.
func serving(file string) (address string, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", false
	}
	path, ok := strings.CutPrefix(string(b), "unix://")
	if !ok || !strings.HasPrefix(path, socketDir+"/") || filepath.Clean(path) != path {
		return "", false
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return string(b), false
	}
	c.Close()
	return string(b), true
}

// group returns the pod's name when the configuration in the working directory
// has a usable one.
func group() string {
	b, err := os.ReadFile("config.json")
	if err != nil {
		return ""
	}
	var s struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	for _, k := range groupKeys {
		if v := s.Annotations[k]; v != "" && v != "." && v != ".." && !strings.Contains(v, "/") {
			return v
		}
	}
	return ""
}

// announce prints the address in the form containerd can read: plain up to 1.6,
// bootstrap parameters when it says that it knows them.
func announce(address string) error {
	if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
		return err
	}
	if n, _ := strconv.Atoi(os.Getenv("MAX_SHIM_VERSION")); n >= 2 {
		address = `{"version":` + strconv.Itoa(min(n, 3)) + `,"address":"` + address + `","protocol":"ttrpc"}`
	}
	_, err := os.Stdout.WriteString(address)
	return err
}

// remove cleans up after a shim that died, and prints a DeleteResponse.
func remove(o options) error {
	bundle := o.bundle
	if bundle == "" {
		var err error
		if bundle, err = os.Getwd(); err != nil {
			return err
		}
	}
	state := o.state
	if state == "" {
		state = filepath.Join(bundle, "state")
	}
	if err := supervisor.Cleanup(context.Background(), bundle, state, o.id); err != nil {
		return err
	}
	removeSocket(filepath.Join(bundle, "address"))
	r := task.DeleteResponse{ExitStatus: 128 + uint32(syscall.SIGKILL), ExitedAt: time.Now()}
	e, err := shim.ReadExit(bundle, o.id)
	if err == nil {
		r = task.DeleteResponse{Pid: e.Pid, ExitStatus: e.Status, ExitedAt: e.At}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = os.Stdout.Write(r.Append(nil))
	return err
}

// removeSocket removes what a shim that containerd had started left of its
// socket, unless it lives (for other containers of its pod).
func removeSocket(addressFile string) {
	address, alive := serving(addressFile)
	if alive || address == "" {
		return
	}
	path := strings.TrimPrefix(address, "unix://")
	os.Remove(path)
	os.Remove(filepath.Dir(path))
}

// printInfo answers containerd 2's -info: containerd.types.RuntimeInfo.
func printInfo() error {
	b := wire.AppendString(nil, 1, "cale")
	b = wire.AppendBytes(b, 2, wire.AppendString(nil, 1, version))
	_, err := os.Stdout.Write(b)
	return err
}
