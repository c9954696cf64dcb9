package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	if !s.HostNetwork {
		if err := network.NewNamespace(p.ns("net")); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	go func() { // the thread is changed for good: it is locked, so it ends with the goroutine
		runtime.LockOSThread()
		done <- pinNamespaces(p, s)
	}()
	if err := <-done; err != nil {
		return err
	}
	if !s.HostIPC {
		if err := mountShm(p.ns("shm"), s.ShmSize); err != nil {
			return err
		}
	}
	if s.SharePID && !s.HostPID {
		return e.holdPIDs(p)
	}
	return nil
}

// pinNamespaces runs on a thread of its own. The namespaces' settings are made from within, where /proc/sys means
// theirs.
func pinNamespaces(p *pod, s *PodSpec) error {
	if !s.HostNetwork {
		fd, err := unix.Open(p.ns("net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
	}
	flags := 0
	if !s.HostIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if !s.HostNetwork { // Kubernetes: the host's network brings the host's name
		flags |= unix.CLONE_NEWUTS
	}
	if flags != 0 {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
	}
	if !s.HostNetwork {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		if err := pin("uts", p.ns("uts")); err != nil {
			return err
		}
	}
	if !s.HostIPC {
		if err := pin("ipc", p.ns("ipc")); err != nil {
			return err
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

func pin(kind, at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount("/proc/thread-self/ns/"+kind, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s namespace: %w", kind, err)
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
	go cmd.Wait() // its end is asked for by dropNamespaces
	f, err := os.OpenFile(p.ns("pid"), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err == nil {
		f.Close()
		err = unix.Mount("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/pid", p.ns("pid"), "", unix.MS_BIND, "")
	}
	if err != nil {
		cmd.Process.Kill()
		return fmt.Errorf("pin pid namespace: %w", err)
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
var pinned = []string{"net", "uts", "ipc", "pid", "shm"}

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
