package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"cale/shim"
	"cale/shim/supervisor"
	"cale/shim/task"
	"cale/shim/wire"
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
	if err := os.MkdirAll(socketDir, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(o.address + "\x00" + o.namespace + "\x00" + group(o.id)))
	path := filepath.Join(socketDir, hex.EncodeToString(sum[:16]))
	if c, err := net.DialTimeout("unix", path, 5*time.Second); err == nil {
		c.Close()
		return announce(path)
	}
	fd, err := shim.Listen(path)
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
	argv := []string{"cale-shim", "-namespace", o.namespace, "-id", o.id, "-socket", path, shim.ServeAction}
	_, err = syscall.ForkExec(self, argv, &syscall.ProcAttr{
		Env:   append(os.Environ(), shim.SmallEnv()...),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(fd)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		os.Remove(path)
		return err
	}
	return announce(path)
}

// group returns the pod's name when the configuration in the working directory
// has one.
func group(id string) string {
	b, err := os.ReadFile("config.json")
	if err != nil {
		return id
	}
	var s struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(b, &s) != nil {
		return id
	}
	for _, k := range groupKeys {
		if v := s.Annotations[k]; v != "" {
			return v
		}
	}
	return id
}

// announce prints the address in the form containerd can read: plain up to 1.6,
// bootstrap parameters when it says that it knows them.
func announce(path string) error {
	address := "unix://" + path
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

// printInfo answers containerd 2's -info: containerd.types.RuntimeInfo.
func printInfo() error {
	b := wire.AppendString(nil, 1, "cale")
	b = wire.AppendBytes(b, 2, wire.AppendString(nil, 1, version))
	_, err := os.Stdout.Write(b)
	return err
}
