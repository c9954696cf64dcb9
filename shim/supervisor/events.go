package supervisor

import (
	"context"
	"net"
	"sync"
	"time"

	"cale/shim/task"
	"cale/shim/ttrpc"
	"cale/wire"
)

// maxEvents bounds the events that wait for containerd to be reachable.
const maxEvents = 1024

// events sends what happens to containerd, in order. The zero address means
// that nobody wants events.
type events struct {
	address, namespace string
	log                func(string)

	queue chan event
	wait  sync.WaitGroup
}

type event struct {
	topic    string
	envelope []byte
}

func newEvents(address, namespace string, log func(string)) *events {
	e := &events{address: address, namespace: namespace, log: log}
	if address != "" {
		e.queue = make(chan event, maxEvents)
		go e.run()
	}
	return e
}

// send queues an event; body appends the event's message.
func (e *events) send(topic, name string, body func(b []byte) []byte) {
	if e.queue == nil {
		return
	}
	now := time.Now()
	stamp := wire.AppendUint(wire.AppendUint(nil, 1, uint64(now.Unix())), 2, uint64(now.Nanosecond()))
	payload := task.Any{URL: "containerd.events." + name, Value: body(nil)}
	var env []byte
	env = wire.AppendBytes(env, 1, stamp)
	env = wire.AppendString(env, 2, e.namespace)
	env = wire.AppendString(env, 3, "/tasks/"+topic)
	env = wire.AppendBytes(env, 4, payload.Append(nil))
	e.wait.Add(1)
	select {
	case e.queue <- event{topic, env}:
	default:
		e.wait.Done()
		e.log("event " + topic + " dropped: containerd does not take events")
	}
}

func (e *events) run() {
	var c *ttrpc.Client
	for ev := range e.queue {
		var err error
		for try := range 5 {
			if c == nil {
				var conn net.Conn
				if conn, err = net.DialTimeout("unix", e.address, 2*time.Second); err == nil {
					c = ttrpc.NewClient(conn)
				}
			}
			if c != nil {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				_, err = c.Call(ctx, "containerd.services.events.ttrpc.v1.Events", "Forward",
					wire.AppendBytes(nil, 1, ev.envelope))
				cancel()
				if err == nil {
					break
				}
				c.Close()
				c = nil
			}
			time.Sleep(time.Duration(try+1) * 200 * time.Millisecond)
		}
		if err != nil {
			e.log("event " + ev.topic + " lost: " + err.Error())
		}
		e.wait.Done()
		if len(e.queue) == 0 && c != nil {
			// Idle: hold no connection of containerd's.
			c.Close()
			c = nil
		}
	}
}

// flush waits until all events are out, no longer than d.
func (e *events) flush(d time.Duration) {
	if e.queue == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		e.wait.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}

func (e *events) created(r *task.CreateRequest, pid int) {
	e.send("create", "TaskCreate", func(b []byte) []byte {
		b = wire.AppendString(b, 1, r.ID)
		b = wire.AppendString(b, 2, r.Bundle)
		for i := range r.Rootfs {
			b = wire.AppendBytes(b, 3, r.Rootfs[i].Append(nil))
		}
		var io []byte
		io = wire.AppendString(io, 1, r.Stdin)
		io = wire.AppendString(io, 2, r.Stdout)
		io = wire.AppendString(io, 3, r.Stderr)
		io = wire.AppendBool(io, 4, r.Terminal)
		b = wire.AppendBytes(b, 4, io)
		return wire.AppendUint(b, 6, uint64(pid))
	})
}

func (e *events) start(id string, pid int) {
	e.send("start", "TaskStart", func(b []byte) []byte {
		return wire.AppendUint(wire.AppendString(b, 1, id), 2, uint64(pid))
	})
}

// exit tells the end of the process execID; an init's is the container's id.
func (e *events) exit(id, execID string, pid int, x Exit) {
	e.send("exit", "TaskExit", func(b []byte) []byte {
		b = wire.AppendString(b, 1, id)
		b = wire.AppendString(b, 2, execID)
		b = wire.AppendUint(b, 3, uint64(pid))
		b = wire.AppendUint(b, 4, uint64(x.Status))
		return appendStamp(b, 5, x.At)
	})
}

func (e *events) deleted(id, execID string, pid int, x Exit) {
	e.send("delete", "TaskDelete", func(b []byte) []byte {
		b = wire.AppendString(b, 1, id)
		b = wire.AppendUint(b, 2, uint64(pid))
		b = wire.AppendUint(b, 3, uint64(x.Status))
		b = appendStamp(b, 4, x.At)
		return wire.AppendString(b, 5, execID)
	})
}

func (e *events) execAdded(id, execID string) {
	e.send("exec-added", "TaskExecAdded", func(b []byte) []byte {
		return wire.AppendString(wire.AppendString(b, 1, id), 2, execID)
	})
}

func (e *events) execStarted(id, execID string, pid int) {
	e.send("exec-started", "TaskExecStarted", func(b []byte) []byte {
		return wire.AppendUint(wire.AppendString(wire.AppendString(b, 1, id), 2, execID), 3, uint64(pid))
	})
}

func (e *events) oom(id string) { e.simple("oom", "TaskOOM", id) }

func (e *events) checkpointed(id, path string) {
	e.send("checkpointed", "TaskCheckpointed", func(b []byte) []byte {
		return wire.AppendString(wire.AppendString(b, 1, id), 2, path)
	})
}

// simple sends an event that only names the container.
func (e *events) simple(topic, name, id string) {
	e.send(topic, name, func(b []byte) []byte { return wire.AppendString(b, 1, id) })
}

func appendStamp(b []byte, field int, t time.Time) []byte {
	p := wire.AppendUint(wire.AppendUint(nil, 1, uint64(t.Unix())), 2, uint64(t.Nanosecond()))
	return wire.AppendBytes(b, field, p)
}
