package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"cale/engine"
)

// containerAlter changes what Docker lets be chosen at a container's creation only: published ports and mounts.
func (s *Server) containerAlter(w http.ResponseWriter, r *request) error {
	var in struct {
		AddPorts, RemovePorts network.PortMap
		AddBinds              []string // in the short form
		AddMounts             []mount.Mount
		RemoveMounts          []string // targets
	}
	if err := r.decode(&in); err != nil {
		return err
	}
	a := engine.Alteration{RemoveMounts: in.RemoveMounts}
	var err error
	if a.AddPorts, err = toPublish(in.AddPorts); err != nil {
		return err
	}
	if a.RemovePorts, err = toPublish(in.RemovePorts); err != nil {
		return err
	}
	for _, b := range in.AddBinds {
		m, err := parseBind(b)
		if err != nil {
			return err
		}
		a.AddMounts = append(a.AddMounts, m)
	}
	for _, m := range in.AddMounts {
		em, err := toMount(m)
		if err != nil {
			return err
		}
		a.AddMounts = append(a.AddMounts, em)
	}
	warnings, err := s.engine.Alter(r.Context(), r.name(), a)
	entryOf(r.Context()).Powers = powers(&engine.Spec{Mounts: a.AddMounts})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.UpdateResponse{Warnings: orNone(warnings)})
}
