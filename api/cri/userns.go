package cri

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// idMap translates a user namespace; nil is the host's.
func idMap(u *runtimeapi.UserNamespace) (*engine.IDMap, error) {
	switch {
	case u == nil:
		return nil, nil
	case u.Mode == runtimeapi.NamespaceMode_NODE:
		if len(u.Uids)+len(u.Gids) > 0 {
			return nil, invalid("the host's user namespace has no mappings")
		}
		return nil, nil
	case u.Mode != runtimeapi.NamespaceMode_POD:
		return nil, invalid("user namespace mode %s: it can be POD or NODE", u.Mode)
	case len(u.Uids) == 0 || len(u.Gids) == 0:
		return nil, invalid("a user namespace needs mappings of user and of group ids")
	}
	return &engine.IDMap{UIDs: idRanges(u.Uids), GIDs: idRanges(u.Gids)}, nil
}

func idRanges(list []*runtimeapi.IDMapping) (out []engine.IDRange) {
	for _, m := range list {
		out = append(out, engine.IDRange{Container: m.ContainerId, Host: m.HostId, Size: m.Length})
	}
	return out
}
