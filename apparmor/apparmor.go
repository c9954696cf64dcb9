// Package apparmor has the profile that containers and a build's steps have
// where the kernel has AppArmor and they ask for no other.
package apparmor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Profile is the profile's name. Files of the kernel that namespaces and
// capabilities leave open are closed by name in it.
const Profile = "cale-default"

const (
	rules = `abi <kernel>,
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
	loaded = "/sys/kernel/security/apparmor/profiles"
	parser = "apparmor_parser"
)

// Enabled tells whether the kernel confines by AppArmor.
var Enabled = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
})

var loading sync.Mutex

// Load gives the kernel the profile, if it has it not. That needs AppArmor's own
// compiler.
func Load() error {
	loading.Lock()
	defer loading.Unlock()
	b, err := os.ReadFile(loaded)
	if err != nil {
		return fmt.Errorf("apparmor: %w", err)
	}
	if strings.Contains("\n"+string(b), "\n"+Profile+" (") {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apparmor: load the profile %s: %w: %s (is apparmor installed?)", Profile, err, strings.TrimSpace(string(out)))
	}
	return nil
}
