package engine

import (
	"path"
	"slices"
)

// podInfo is all that is known of a pod.
func (e *Engine) podInfo(p *pod) PodInfo {
	p.mu.Lock()
	rec := p.rec
	p.mu.Unlock()
	i := PodInfo{PodState: p.stateOf(rec.Ready), Pid: rec.Holder, CgroupParent: e.podCgroup(p)}
	if !rec.Spec.HostNetwork && rec.Ready {
		i.NetNS = p.ns("net")
		i.IPs = e.addresses(p, &rec)
	}
	return i
}

func (p *pod) stateOf(ready bool) PodState {
	return PodState{ID: p.id, Created: p.rec.Created, Spec: p.spec(), Ready: ready}
}

func (e *Engine) podCgroup(p *pod) string {
	if parent := p.spec().CgroupParent; parent != "" {
		return path.Join("/", parent)
	}
	return path.Join(e.cfg.CgroupParent, p.id)
}

// Pod gives one pod by its id or a unique prefix.
func (e *Engine) Pod(ref string) (PodInfo, error) {
	p, err := e.findPod(ref)
	if err != nil {
		return PodInfo{}, err
	}
	return e.podInfo(p), nil
}

// Pods lists the pods, the newest first.
func (e *Engine) Pods() []PodState {
	e.mu.Lock()
	list := make([]*pod, 0, len(e.pods))
	for _, p := range e.pods {
		list = append(list, p)
	}
	e.mu.Unlock()
	out := make([]PodState, len(list))
	for i, p := range list {
		out[i] = p.stateOf(p.ready())
	}
	slices.SortFunc(out, func(a, b PodState) int { return b.Created.Compare(a.Created) })
	return out
}

// MemberStates lists the containers of a pod, or of all pods (ref ""), the newest first.
func (e *Engine) MemberStates(ref string) ([]MemberState, error) {
	list, err := e.membersOf(ref)
	if err != nil {
		return nil, err
	}
	out := make([]MemberState, len(list))
	for k, c := range list {
		c.mu.Lock()
		out[k] = MemberState{ID: c.id, Created: c.rec.Created, ImageID: c.rec.ImageID, Member: c.rec.Spec.Member, State: c.rec.State}
		c.mu.Unlock()
	}
	return out, nil
}

// membersOf are the containers of a pod, or of all pods, the newest first. When one was made never changes.
func (e *Engine) membersOf(ref string) ([]*container, error) {
	var p *pod
	if ref != "" {
		var err error
		if p, err = e.findPod(ref); err != nil {
			return nil, err
		}
	}
	list := slices.DeleteFunc(e.all(), func(c *container) bool { return c.group == nil || p != nil && c.group != p })
	slices.SortFunc(list, func(a, b *container) int { return b.rec.Created.Compare(a.rec.Created) })
	return list, nil
}

// Members lists the same containers, and tells of each what Member does.
func (e *Engine) Members(ref string) ([]Info, error) {
	list, err := e.membersOf(ref)
	if err != nil {
		return nil, err
	}
	out := make([]Info, len(list))
	for k, c := range list {
		out[k], _ = c.brief()
	}
	return out, nil
}

// Member is a container of a pod, by its id or a unique prefix, without what has to be looked up: its layers, mounts,
// endpoints and sessions.
func (e *Engine) Member(ref string) (Info, error) {
	c, err := e.find(ref)
	if err == nil && c.group == nil {
		err = notFound("No such container: %s", ref)
	}
	if err != nil {
		return Info{}, err
	}
	i, _ := c.brief()
	return i, nil
}
