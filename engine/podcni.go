package engine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"cale/network"
	"cale/network/cni"
)

// CNI says where a node keeps plug-ins of the Container Network Interface, for pods. Without a configuration there,
// pods are on the engine's own bridge, unless Required says that they may not be.
type CNI struct {
	ConfDir  string // "" is none: CNI is not used
	Bin      []string
	Required bool
}

// cniOf is the configuration for a new pod, nil if it is to be on our own bridge. The directory is looked at each time,
// so a change counts at once.
func (e *Engine) cniOf() (*cni.List, error) {
	if e.cfg.CNI.ConfDir == "" {
		return nil, nil
	}
	l, err := cni.Load(e.cfg.CNI.ConfDir)
	if errors.Is(err, cni.ErrNone) && !e.cfg.CNI.Required {
		return nil, nil
	}
	if errors.Is(err, cni.ErrNone) {
		err = fail(ErrUnavailable, "no CNI configuration in %s", e.cfg.CNI.ConfDir)
	}
	return l, err
}

// PodNetworkReady says whether pods could be connected now, and why not.
func (e *Engine) PodNetworkReady(ctx context.Context) error {
	l, err := e.cniOf()
	if err != nil || l == nil {
		return err
	}
	return l.Status(ctx, e.cfg.CNI.Bin)
}

// collecting is the telling of plug-ins what is attached, which happens once, beside all else, and is given up when a
// pod is to be attached: no plug-in may take its address for one of nobody's.
type collecting struct {
	stop context.CancelFunc
	done chan struct{}
}

// collectTime bounds how long plug-ins may take to give back what is nobody's.
const collectTime = time.Minute

// collectCNI has plug-ins give back what they hold for pods that are no more.
func (e *Engine) collectCNI() {
	l, err := e.cniOf()
	if err != nil || l == nil { // who makes a pod is told
		return
	}
	attached, err := e.attached(l.Name)
	if err != nil {
		e.cfg.Log("CNI network %s: nothing is collected: %v", l.Name, err)
		return
	}
	ctx, cancel := context.WithTimeout(e.ending, collectTime)
	e.collecting = collecting{cancel, make(chan struct{})}
	e.work.Go(func() {
		defer close(e.collecting.done)
		defer cancel()
		if err := l.Collect(ctx, e.cfg.CNI.Bin, attached); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			e.cfg.Log("CNI network %s: %v", l.Name, err)
		}
	})
}

// attached are the pods that plug-ins have to know of, whatever became of them.
func (e *Engine) attached(network string) (list []cni.Place, err error) {
	pods, err := os.ReadDir(filepath.Join(e.cfg.Root, "pods"))
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		a, err := cni.Read(filepath.Join(e.cfg.Root, "pods", p.Name(), cniName))
		if err != nil {
			return nil, err
		}
		if a != nil && a.Config.Name == network {
			list = append(list, cni.Place{ID: a.ID, Interface: a.Interface})
		}
	}
	return list, nil
}

// cniName is the file that keeps what was asked of plug-ins; while it is there, they have to be told that the pod is
// gone.
const cniName = "cni.json"

func (p *pod) cniFile() string { return filepath.Join(p.dir, cniName) }

func (p *pod) onCNI() bool {
	_, err := os.Lstat(p.cniFile())
	return err == nil
}

// attachCNI connects a pod by plug-ins.
func (e *Engine) attachCNI(ctx context.Context, p *pod, l *cni.List) ([]*network.Endpoint, error) {
	s := p.spec()
	a := &cni.Attachment{Config: *l, ID: p.id, NetNS: p.ns("net"), Interface: "eth0", Args: map[string]string{}, Offered: map[string]any{}}
	for k, v := range s.NetworkArgs {
		a.Args[k] = v
	}
	for k, v := range s.NetworkOffers {
		a.Offered[k] = v
	}
	a.Args["K8S_POD_INFRA_CONTAINER_ID"] = p.id
	a.Offered["cgroupPath"] = e.podCgroup(p)
	if ports := cniPorts(s.Publish); len(ports) > 0 {
		a.Offered["portMappings"] = ports
		if !l.CanPublish() {
			return nil, fail(ErrUnsupported, "the pod publishes ports of the host, and no plug-in of the CNI network %s (%s) can: it needs portmap, with the capability portMappings", l.Name, l.File)
		}
	}
	if len(s.DNS)+len(s.DNSSearch)+len(s.DNSOptions) > 0 {
		a.Offered["dns"] = map[string]any{"servers": s.DNS, "searches": s.DNSSearch, "options": s.DNSOptions}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ending, cancel)()
	if c := e.collecting; c.stop != nil {
		c.stop()
		<-c.done
	}
	if err := cni.Add(ctx, a, e.cfg.CNI.Bin, p.cniFile()); err != nil {
		return nil, err
	}
	addrs, err := a.Addresses()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	for _, prefix := range addrs {
		p.rec.Addrs = append(p.rec.Addrs, prefix.Addr())
	}
	p.mu.Unlock()
	ep := &network.Endpoint{Container: p.id, NetNS: a.NetNS, Hostname: s.Hostname}
	for _, prefix := range addrs {
		if prefix.Addr().Is4() && !ep.IPv4.IsValid() {
			ep.IPv4 = prefix
		} else if prefix.Addr().Is6() && !ep.IPv6.IsValid() {
			ep.IPv6 = prefix
		}
	}
	return []*network.Endpoint{ep}, nil
}

// cniPort is a published port as the capability portMappings has it.
type cniPort struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

func cniPorts(list []Publish) (out []cniPort) {
	for _, p := range list {
		host := ""
		if p.HostIP.IsValid() {
			host = p.HostIP.String()
		}
		out = append(out, cniPort{p.HostPort, p.Port.Number, p.Port.Protocol, host})
	}
	return out
}

// detachPod takes a pod off its networks. A plug-in that isn't installed any more can't be told, so that is no reason
// to keep the pod.
func (e *Engine) detachPod(ctx context.Context, p *pod) error {
	if !p.onCNI() {
		return e.nets.Detach(ctx, p.id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ending, cancel)()
	err := cni.Del(ctx, e.cfg.CNI.Bin, p.cniFile())
	if errors.Is(err, cni.ErrNoPlugin) {
		e.cfg.Log("pod %s: %v; what it has of the network may be left", p.id, err)
		return os.Remove(p.cniFile())
	}
	return err
}

// Ending gives up what waits for others' programs, which may take their time: this process is about to end, and the
// next one goes on where it was.
func (e *Engine) Ending() { e.end() }

// addresses are a pod's own.
func (e *Engine) addresses(p *pod, rec *podRecord) (out []netip.Addr) {
	if len(rec.Addrs) > 0 {
		return rec.Addrs
	}
	for _, ep := range e.nets.Endpoints(p.id) {
		for _, prefix := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if prefix.IsValid() {
				out = append(out, prefix.Addr())
			}
		}
	}
	return out
}
