package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cale/atomicfile"
)

// Attachment is one namespace's place on a network. It is written to a file before a plug-in hears of it, so that
// whatever happens, the network can be told that it is over.
type Attachment struct {
	Config    List              `json:"config"`
	ID        string            `json:"id"`
	NetNS     string            `json:"netns"` // path of the pinned namespace
	Interface string            `json:"interface"`
	Args      map[string]string `json:"args,omitempty"`
	// Offered are the runtime's arguments by capability, such as portMappings.
	Offered map[string]any `json:"offered,omitempty"`
	// Result is what the last plug-in answered; nothing, as long as not all have.
	Result json.RawMessage `json:"result,omitempty"`
}

// args writes CNI_ARGS. A semicolon would part one value in two: such values are left out.
func (a *Attachment) args() string {
	list := []string{"IgnoreUnknown=1"}
	for _, k := range slices.Sorted(maps.Keys(a.Args)) {
		if v := a.Args[k]; !strings.ContainsAny(k+v, ";\x00") {
			list = append(list, k+"="+v)
		}
	}
	return strings.Join(list, ";")
}

// Add connects the namespace and keeps what it needs to disconnect it in file. What fails half way stays: Del has to
// be called.
func Add(ctx context.Context, a *Attachment, bin []string, file string) error {
	a.Result = nil
	if err := a.save(file); err != nil {
		return err
	}
	var prev json.RawMessage
	for _, raw := range a.Config.Plugins {
		p, err := a.Config.look(raw)
		if err != nil {
			return err
		}
		in, err := a.Config.stdin(raw, a.Offered, prev)
		if err != nil {
			return fmt.Errorf("CNI plug-in %s: %w", p.Type, err)
		}
		out, err := call(ctx, p.Type, bin, "ADD", a, in)
		if err != nil {
			return err
		}
		if out = slices.Clone(out); !json.Valid(out) {
			return fmt.Errorf("CNI plug-in %s: its answer is no JSON", p.Type)
		}
		prev = out
	}
	a.Result = prev
	return a.save(file)
}

func (a *Attachment) save(file string) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, raw, 0o600, false)
}

// Read gives what a file keeps, nil if there is none.
func Read(file string) (*Attachment, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := new(Attachment)
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return a, nil
}

// Del disconnects a namespace, which may be gone already, with the configuration that it was connected by, the last
// plug-in first; then file goes. Without the file there is nothing to do. All plug-ins are asked, whichever fail.
func Del(ctx context.Context, bin []string, file string) error {
	a, err := Read(file)
	if err != nil || a == nil {
		return err
	}
	if !isNamespace(a.NetNS) {
		a.NetNS = "" // the specification's way to say so
	}
	var errs []error
	for _, raw := range slices.Backward(a.Config.Plugins) {
		p, err := a.Config.look(raw)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		prev := a.Result
		if before(a.Config.Version, "0.4.0") { // which did not have it at DEL
			prev = nil
		}
		in, err := a.Config.stdin(raw, a.Offered, prev)
		if err == nil {
			_, err = call(ctx, p.Type, bin, "DEL", a, in)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(file)
}

// Status asks the plug-ins whether they could connect something now. Versions before 1.1.0 can't be asked.
func (l *List) Status(ctx context.Context, bin []string) error {
	for _, raw := range l.Plugins {
		p, err := l.look(raw)
		if err != nil {
			return err
		}
		if _, err := find(p.Type, bin); err != nil {
			return err
		}
		if before(l.Version, "1.1.0") {
			continue
		}
		in, err := l.stdin(raw, nil, nil)
		if err == nil {
			_, err = call(ctx, p.Type, bin, "STATUS", nil, in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Place is where something is attached to a network.
type Place struct {
	ID        string `json:"containerID"`
	Interface string `json:"ifname"`
}

// Collect tells the plug-ins all places that are attached to the network, so that they give back what they hold for
// others. Versions before 1.1.0 can't be told, and nobody is where the configuration forbids it. All plug-ins are told,
// whichever fail.
func (l *List) Collect(ctx context.Context, bin []string, attached []Place) error {
	if bool(l.NoGC) || before(l.Version, "1.1.0") {
		return nil
	}
	var errs []error
	for _, raw := range l.Plugins {
		p, err := l.look(raw)
		if err != nil {
			return err
		}
		var in []byte
		if raw, err = withPlaces(raw, attached); err == nil {
			in, err = l.stdin(raw, nil, nil)
		}
		if err == nil {
			_, err = call(ctx, p.Type, bin, "GC", nil, in)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// withPlaces adds the list of places to a plug-in's configuration; the second name is the one that plug-ins of the
// specification's first days know.
func withPlaces(raw json.RawMessage, attached []Place) (json.RawMessage, error) {
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	places, err := json.Marshal(append([]Place{}, attached...)) // none is an empty list
	if err != nil {
		return nil, err
	}
	conf["cni.dev/valid-attachments"], conf["cni.dev/attachments"] = places, places
	return json.Marshal(conf)
}

// before compares versions of the specification; what can't be read is new.
func before(version, than string) bool {
	var a, b [3]int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &a[0], &a[1], &a[2]); err != nil {
		return false
	}
	_, _ = fmt.Sscanf(than, "%d.%d.%d", &b[0], &b[1], &b[2]) // ours to write
	return slices.Compare(a[:], b[:]) < 0
}

// isNamespace says whether a path still is a pinned namespace.
func isNamespace(path string) bool {
	var st unix.Statfs_t
	return path != "" && unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// result is the part of a plug-in's answer that says what addresses there are, of all versions.
type result struct {
	Interfaces []struct {
		Name    string `json:"name"`
		Sandbox string `json:"sandbox"`
	} `json:"interfaces"`
	IPs []struct {
		Address   netip.Prefix `json:"address"`
		Interface *int         `json:"interface"`
	} `json:"ips"`
	IP4, IP6 struct { // versions 0.1 and 0.2
		IP netip.Prefix `json:"ip"`
	}
}

// Addresses are those that the namespace's interface has got.
func (a *Attachment) Addresses() ([]netip.Prefix, error) {
	if len(a.Result) == 0 {
		return nil, nil
	}
	var r result
	if err := json.Unmarshal(a.Result, &r); err != nil {
		return nil, fmt.Errorf("result of CNI network %s: %w", a.Config.Name, err)
	}
	var out []netip.Prefix
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) {
			if in := r.Interfaces[*i]; in.Sandbox == "" || in.Name != a.Interface {
				continue // of the host's side, or of another interface
			}
		}
		out = append(out, ip.Address)
	}
	for _, p := range []netip.Prefix{r.IP4.IP, r.IP6.IP} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out, nil
}
