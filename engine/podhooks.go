package engine

import "context"

// PodHooks are told of moments in the lives of pods and their containers that a client sees as one: within a call,
// before its outcome is visible. Each may be nil.
type PodHooks struct {
	// Run is called when a pod has all it needs, before anybody can see it. An error unmakes the pod.
	Run func(ctx context.Context, p PodInfo) error
	// Stopped is called when a pod's containers have ended, before its network and namespaces go.
	Stopped func(ctx context.Context, p PodInfo)
	// Create is called for a container of a pod before it is made; it may change what was asked for. An error is the
	// end of it.
	Create func(ctx context.Context, id string, s *Spec) error
}

// HookPods sets the hooks. It has to be called before anything is asked of the engine.
func (e *Engine) HookPods(h PodHooks) { e.hooks = h }
