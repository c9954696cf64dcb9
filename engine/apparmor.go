package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// apparmorProfile is the profile that containers have where the kernel has AppArmor and they ask for no other: files
// of the kernel that namespaces and capabilities leave open are closed by name. The name that Docker's profile has
// stands for it too.
const (
	apparmorProfile = "cale-default"
	apparmorRules   = `abi <kernel>,
profile cale-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  # Containers are signalled from outside and among themselves.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=cale-default,
  ptrace (trace, tracedby, read, readby) peer=cale-default,

  deny mount,

  # What the kernel shows of all the machine is not a container's to change.
  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,dynamic_debug,fs,irq,scsi,sysvipc,tty}/** w,
  deny /proc/sys/{abi,crypto,debug,dev,fs,kernel,sunrpc,user,vm}/** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,
  deny /sys/{block,bus,class,dev,devices,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/{bpf,btrfs,ext4,f2fs,fuse,pstore,resctrl,selinux,smackfs,xfs}/** wklx,
  deny /sys/{devices/virtual/powercap,firmware,kernel/security}/** rwklx,
}
`
	apparmorLoaded = "/sys/kernel/security/apparmor/profiles"
	apparmorParser = "apparmor_parser"
)

// hasApparmor tells whether the kernel confines by AppArmor.
var hasApparmor = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
})

// apparmorOf is the profile of a container's processes, "" for none. The default one is loaded if it isn't there.
func apparmorOf(s *Security) (string, error) {
	switch s.AppArmor {
	case "unconfined":
		return "", nil
	case "", "docker-default", apparmorProfile:
		if !hasApparmor() || s.Privileged {
			return "", nil
		}
		if err := loadApparmor(); err != nil {
			return "", err
		}
		return apparmorProfile, nil
	}
	return s.AppArmor, nil
}

var apparmorLoading sync.Mutex

// loadApparmor gives the kernel the default profile. Loading it needs AppArmor's own compiler.
func loadApparmor() error {
	apparmorLoading.Lock()
	defer apparmorLoading.Unlock()
	b, err := os.ReadFile(apparmorLoaded)
	if err != nil {
		return fmt.Errorf("apparmor: %w (run with --security-opt apparmor=unconfined to do without)", err)
	}
	if strings.Contains("\n"+string(b), "\n"+apparmorProfile+" (") {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, apparmorParser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(apparmorRules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apparmor: load the profile %s: %w: %s (install apparmor, or run with --security-opt apparmor=unconfined)",
			apparmorProfile, err, strings.TrimSpace(string(out)))
	}
	return nil
}
