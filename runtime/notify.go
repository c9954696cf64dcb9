package runtime

import (
	"encoding/json"
	"fmt"

	"cale/runtime/launch"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sendListener hands the descriptor of a seccomp filter that notifies to the agent the configuration names.
func (c *Container) sendListener(p *launch.Proc, fd int, s *specs.Spec) error {
	own, err := unix.PidfdGetfd(int(p.PidFD.Fd()), fd, 0)
	if err != nil {
		return fmt.Errorf("get the seccomp listener: %w", err)
	}
	defer unix.Close(own)
	sec := s.Linux.Seccomp
	if sec.ListenerPath == "" {
		return fmt.Errorf("seccomp rules notify, and there is no listenerPath")
	}
	st, err := c.State()
	if err != nil {
		return err
	}
	pid := st.Pid
	if pid == 0 {
		pid = p.Pid
	}
	state := specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: p.Pid, Metadata: sec.ListenerMetadata,
		State: specs.State{Version: specs.Version, ID: c.rec.ID, Status: specs.ContainerState(st.Status), Pid: pid,
			Bundle: c.rec.Bundle, Annotations: st.Annotations},
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := linux.SendFD(sec.ListenerPath, raw, own); err != nil {
		return fmt.Errorf("failed to connect with seccomp agent specified in the seccomp profile: %w", err)
	}
	return nil
}
