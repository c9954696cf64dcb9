package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Rename gives a container another name.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if name = strings.TrimPrefix(name, "/"); name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	old := c.name()
	if name == old {
		return invalid("Renaming a container with the same name as its current name")
	}
	if _, err := e.reserveName(name, c.id); err != nil {
		return err
	}
	c.mu.Lock()
	c.rec.Name, c.rec.Spec.Name = name, name
	err = c.save(c.keep())
	if err != nil {
		c.rec.Name, c.rec.Spec.Name = old, old
	}
	c.mu.Unlock()
	if err != nil {
		e.releaseName(name, c.id)
		return err
	}
	e.releaseName(old, c.id)
	if err := e.nets.Rename(c.id, name); err != nil {
		e.cfg.Log("container %s: %v", c.id, err)
	}
	e.emit(c, "rename", "oldName", "/"+old)
	return nil
}

// Update changes limits and the restart policy. Zero values in r leave what is set.
func (e *Engine) Update(ctx context.Context, ref string, r Resources, p *Restart) ([]string, error) {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	if err := c.op.lock(ctx); err != nil {
		return nil, err
	}
	defer c.op.unlock()
	c.mu.Lock()
	spec, run, removing := c.rec.Spec, c.run, c.removing
	c.mu.Unlock()
	if removing {
		return nil, conflict("container is marked for removal and cannot be \"update\"")
	}
	if set := spec.Resources.MemorySwap; r.Memory > 0 && r.MemorySwap == 0 && set > 0 && r.Memory > set {
		return nil, conflict("Cannot update container %s: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time", c.id)
	}
	switch had := &spec.Resources; {
	case had.NanoCPUs > 0 && r.CPUPeriod > 0:
		return nil, invalid("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case had.NanoCPUs > 0 && r.CPUQuota > 0:
		return nil, invalid("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case r.NanoCPUs > 0 && had.CPUPeriod > 0:
		return nil, invalid("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case r.NanoCPUs > 0 && had.CPUQuota > 0:
		return nil, invalid("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	}
	replaceResources(&spec.Resources, &r)
	tell := replaceRates(&spec.Resources, &r)
	if p != nil && p.Name != "" {
		spec.Restart = *p
	}
	if err := e.checkUpdate(&spec); err != nil {
		return nil, fmt.Errorf("Cannot update container %s: %w", c.id, err)
	}
	warnings := spec.Resources.settle()
	if run != nil {
		tell.MemorySwap = spec.Resources.MemorySwap
		res, err := limits(&tell)
		if err != nil {
			return nil, err
		}
		if tell.Pids != nil && *tell.Pids == 0 {
			unlimited := int64(-1)
			res.Pids = &specs.LinuxPids{Limit: &unlimited}
		}
		raw, err := json.Marshal(res)
		if err != nil {
			return nil, err
		}
		if err := run.shim.Update(ctx, c.id, raw); err != nil {
			return nil, fmt.Errorf("Cannot update container %s: %w", c.id, err)
		}
	}
	c.mu.Lock()
	c.rec.Spec = spec
	err = c.save(c.keep())
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if run != nil {
		e.watchMemory(c, run)
	}
	e.emit(c, "update")
	return warnings, nil
}

func (e *Engine) checkUpdate(s *Spec) error {
	if s.AutoRemove && s.Restart.Name != "" && s.Restart.Name != "no" {
		return conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	switch s.Restart.Name {
	case "", "no", "always", "unless-stopped", "on-failure":
	default:
		return invalid("invalid restart policy: unknown policy '%s'", s.Restart.Name)
	}
	return checkResources(&s.Resources)
}

// settledPids makes every way to say "unlimited" 0.
func settledPids(n *int64) *int64 {
	if n == nil || *n > 0 {
		return n
	}
	return new(int64)
}

// replaceResources puts the values that are set in b over a.
func replaceResources(a, b *Resources) {
	set := func(to *int64, v int64) {
		if v != 0 {
			*to = v
		}
	}
	set(&a.Memory, b.Memory)
	set(&a.MemoryReservation, b.MemoryReservation)
	set(&a.MemorySwap, b.MemorySwap)
	set(&a.CPUShares, b.CPUShares)
	set(&a.CPURealtimePeriod, b.CPURealtimePeriod)
	set(&a.CPURealtimeRuntime, b.CPURealtimeRuntime)
	if b.NanoCPUs != 0 {
		a.NanoCPUs, a.CPUPeriod, a.CPUQuota = b.NanoCPUs, 0, 0
	}
	if b.CPUPeriod != 0 || b.CPUQuota != 0 {
		a.NanoCPUs = 0
		set(&a.CPUPeriod, b.CPUPeriod)
		set(&a.CPUQuota, b.CPUQuota)
	}
	if b.CpusetCPUs != "" {
		a.CpusetCPUs = b.CpusetCPUs
	}
	if b.CpusetMems != "" {
		a.CpusetMems = b.CpusetMems
	}
	if b.Pids != nil {
		a.Pids = settledPids(b.Pids)
	}
	if b.BlkioWeight != 0 {
		a.BlkioWeight = b.BlkioWeight
	}
	if b.MemorySwappiness != nil {
		a.MemorySwappiness = b.MemorySwappiness
	}
	if b.OOMKillDisable != nil {
		a.OOMKillDisable = b.OOMKillDisable
	}
	if b.Ulimits != nil {
		a.Ulimits = slices.Clone(b.Ulimits)
	}
}
