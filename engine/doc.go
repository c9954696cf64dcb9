// Package engine is what caled does: pods and the containers in them, exec sessions, volumes, restarts, health,
// logs and events, over the image store, the networks and the shims. It knows no protocol: the packages under api
// translate theirs into calls of Engine.
package engine
