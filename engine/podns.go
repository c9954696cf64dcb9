package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cale/network"
	"cale/runtime/linux"
	"cale/shim"
)

// makeNamespaces pins a pod's namespaces as files in its run directory.
func (e *Engine) makeNamespaces(p *pod) error {
	s := p.spec()
	switch {
	case s.User != nil:
		if err := e.pinUserNamespaces(p); err != nil {
			return err
		}
	case !s.HostNetwork:
		if err := network.NewNamespace(p.ns("net")); err != nil {
			return err
		}
	}
	var err error
	linux.InThread(func() { err = pinNamespaces(p, s) })
	if err != nil {
		return err
	}
	if !s.HostIPC {
		if err := mountShm(p.ns("shm"), s.ShmSize, s.User); err != nil {
			return err
		}
	}
	if s.SharePID && !s.HostPID && s.User == nil {
		return e.holdPIDs(p)
	}
	return nil
}

// pinNamespaces runs on a thread of its own. The namespaces' settings are made from within, where /proc/sys means
// theirs.
func pinNamespaces(p *pod, s *PodSpec) error {
	if !s.HostNetwork {
		if err := enter(p.ns("net"), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if s.User != nil {
			if err := network.LoopbackUp(); err != nil {
				return err
			}
		}
	}
	for _, ns := range []struct {
		kind  string
		flag  int
		hosts bool
	}{{"ipc", unix.CLONE_NEWIPC, s.HostIPC}, {"uts", unix.CLONE_NEWUTS, s.HostNetwork}} { // Kubernetes: the host's network brings the host's name
		switch {
		case ns.hosts:
			continue
		case s.User != nil: // it is there already
			if err := enter(p.ns(ns.kind), ns.flag); err != nil {
				return err
			}
			continue
		}
		if err := unix.Unshare(ns.flag); err != nil {
			return fmt.Errorf("make the %s namespace: %w", ns.kind, err)
		}
		if err := pin("/proc/thread-self/ns/"+ns.kind, p.ns(ns.kind)); err != nil {
			return err
		}
	}
	if !s.HostNetwork {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	for k, v := range s.Sysctls {
		name := strings.ReplaceAll(k, ".", "/")
		if strings.Contains(k, "/") { // the other way to write it: slashes part, dots are dots
			name = k
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(v), 0o644); err != nil {
			return invalid("sysctl %s=%s: %v", k, v, err)
		}
	}
	return nil
}

// enter moves the calling thread into a pinned namespace.
func enter(at string, kind int) error {
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open namespace", Path: at, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, kind); err != nil {
		return fmt.Errorf("enter the namespace %s: %w", at, err)
	}
	return nil
}

// pin keeps a namespace of a process as a file.
func pin(ns, at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(ns, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace %s: %w", ns, err)
	}
	return nil
}

// holdPIDs starts the first process of a shared pid namespace, without which there can be none.
func (e *Engine) holdPIDs(p *pod) error {
	program, err := linux.OpenProgram(e.cfg.Shim)
	if err != nil {
		return err
	}
	defer program.Close()
	cmd := exec.Command(program.Path, shim.HoldAction)
	cmd.Args[0] = filepath.Base(e.cfg.Shim)
	cmd.Dir = "/"
	cmd.Env = shim.SmallEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("hold the pid namespace: %w", err)
	}
	// Until it is waited for, its number is nobody else's.
	err = pin("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/pid", p.ns("pid"))
	go cmd.Wait() // its end is asked for by dropNamespaces
	if err != nil {
		cmd.Process.Kill()
		return err
	}
	p.rec.Holder = cmd.Process.Pid
	return nil
}

// dropNamespaces ends the holder and takes the pins away; the namespaces end with their last process.
func (e *Engine) dropNamespaces(p *pod) {
	if err := endHolder(p.rec.Holder, p.ns("pid")); err != nil {
		e.cfg.Log("pod %s: %v", p.id, err)
	}
	p.rec.Holder = 0
	for _, name := range pinned {
		if err := unmountPin(p.ns(name)); err != nil {
			e.cfg.Log("pod %s: %v", p.id, err)
		}
	}
}

// pinned are the mounts in a pod's run directory.
var pinned = []string{"net", "uts", "ipc", "pid", "user", "shm"}

func unmountPin(at string) error {
	if _, err := os.Lstat(at); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
		return fmt.Errorf("unmount %s: %w", at, err)
	}
	return os.Remove(at)
}

// endHolder kills the process that holds a pid namespace, if the pid is still its.
func endHolder(pid int, pinnedAt string) error {
	if pid <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	var own, pin unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/pid", &own) != nil || unix.Stat(pinnedAt, &pin) != nil || own.Ino != pin.Ino || own.Dev != pin.Dev {
		return nil // somebody else's pid by now
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("end what holds the pid namespace: %w", err)
	}
	return nil
}
