package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cale/network"
)

// Links let a container find others by names of its own. On networks that users define the network answers such names
// (package network); on the default network, where nobody answers, they are lines of the hosts file.

// settleLinks checks a new container's links. Those of the default network name containers, which may be renamed: they
// are kept by id.
func (e *Engine) settleLinks(n *Network) error {
	if len(n.Links) == 0 {
		return nil
	}
	switch {
	case n.Mode == "host":
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case strings.HasPrefix(n.Mode, "container:"):
		return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case userDefined(n.Mode):
		return nil // whoever has the name when it is asked for
	}
	n.Links = slices.Clone(n.Links)
	for i, l := range n.Links {
		name, alias, _ := strings.Cut(l, ":")
		other, err := e.find(name)
		if err != nil {
			return invalid("could not get container for %s: %v", name, err)
		}
		for hops := 0; hops < 16; hops++ {
			ref, shares := strings.CutPrefix(other.networkMode(), "container:")
			if !shares {
				break
			}
			if other, err = e.find(ref); err != nil {
				return invalid("could not get container for %s: %v", name, err)
			}
		}
		if other.networkMode() == "host" {
			return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		n.Links[i] = other.id + ":" + alias
	}
	return nil
}

// hostLinks are the links that the hosts file tells, "id:alias".
func (n *Network) hostLinks() []string {
	if own, joins := isOwn(n.Mode); !own || !joins || userDefined(n.Mode) {
		return nil
	}
	return n.Links
}

// findLinked looks up the container that a link of the named one leads to.
func (e *Engine) findLinked(ref, name, alias string) (*container, error) {
	from, err := e.find(name)
	if err != nil {
		return nil, err
	}
	from.mu.Lock()
	links := from.rec.Spec.Network.hostLinks()
	from.mu.Unlock()
	for _, l := range links {
		if id, as, _ := strings.Cut(l, ":"); as == alias {
			return e.find(id)
		}
	}
	return nil, notFound("No such container: %s", ref)
}

// linkedHosts are the lines of the hosts file for a container's links.
func (e *Engine) linkedHosts(rec *record) ([]network.HostEntry, error) {
	var out []network.HostEntry
	for _, l := range rec.Spec.Network.hostLinks() {
		id, alias, _ := strings.Cut(l, ":")
		other, err := e.find(id)
		if err != nil {
			continue // removed since: the name means nothing any more
		}
		ep := e.bridgeEndpoint(other)
		if ep == nil {
			other.mu.Lock()
			name, running := other.rec.Name, other.run != nil
			other.mu.Unlock()
			if running || rec.Spec.Restart.Name != "" && rec.Spec.Restart.Name != "no" {
				continue // it comes back too perhaps, and then the line is written
			}
			return nil, fmt.Errorf("Cannot link to a non running container: /%s AS /%s/%s", name, rec.Name, alias)
		}
		other.mu.Lock()
		names := []string{alias, other.rec.Run.Hostname}
		if name := other.rec.Name; name != alias {
			names = append(names, name)
		}
		other.mu.Unlock()
		out = append(out, network.HostEntry{Addr: ep.IPv4.Addr(), Names: names})
		if ep.IPv6.IsValid() {
			out = append(out, network.HostEntry{Addr: ep.IPv6.Addr(), Names: names})
		}
	}
	return out, nil
}

// bridgeEndpoint is a container's place on the default network, nil if it has none now.
func (e *Engine) bridgeEndpoint(c *container) *network.Endpoint {
	for _, ep := range e.nets.Endpoints(c.id) {
		if ep.Network == network.Bridge {
			return ep
		}
	}
	return nil
}

// tellLinked writes the hosts files of the running containers that are linked to c, which has a new address.
func (e *Engine) tellLinked(c *container) {
	for _, other := range e.all() {
		other.mu.Lock()
		links := other.rec.Spec.Network.hostLinks()
		if other.run == nil || !slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, c.id+":") }) {
			other.mu.Unlock()
			continue
		}
		rec := other.rec
		other.mu.Unlock()
		raw, err := e.hostsFile(&rec, e.nets.Endpoints(other.id))
		if err == nil {
			err = os.WriteFile(filepath.Join(other.dir, "hosts"), raw, 0o644)
		}
		if err != nil {
			e.cfg.Log("container %s: names of linked containers: %v", other.id, err)
		}
	}
}

// linkNames words a container's links with the names that the others have now: "name:alias".
func (e *Engine) linkNames(n *Network) []string {
	var out []string
	for _, l := range n.hostLinks() {
		id, alias, _ := strings.Cut(l, ":")
		if other, err := e.find(id); err == nil {
			out = append(out, other.name()+":"+alias)
		}
	}
	return out
}

// linksTo finds all links by the container they lead to: "name of the linking one/alias".
func linksTo(infos []Info) map[string][]string {
	out := map[string][]string{}
	for i := range infos {
		for _, l := range infos[i].Spec.Network.hostLinks() {
			id, alias, _ := strings.Cut(l, ":")
			out[id] = append(out[id], infos[i].Name+"/"+alias)
		}
	}
	return out
}

// Unlink takes a link away that is named by its container and its alias: "container/alias".
func (e *Engine) Unlink(ref string) error {
	name, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/")
	if !ok {
		return invalid("a link is named by its container and alias: container/alias")
	}
	c, err := e.find(name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	links := slices.DeleteFunc(slices.Clone(c.rec.Spec.Network.Links), func(l string) bool { return strings.HasSuffix(l, ":"+alias) })
	if len(links) == len(c.rec.Spec.Network.Links) {
		return notFound("Could not get parent: no link %s", ref)
	}
	c.rec.Spec.Network.Links = links
	return c.save(c.keep())
}
