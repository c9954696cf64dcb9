package engine

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"cale/image"
)

const (
	eventHistory = 256
	eventBacklog = 1024 // events a subscriber may be behind before it is dropped
)

// eventLog keeps the last events and hands new ones to subscribers.
type eventLog struct {
	mu   sync.Mutex
	ring []Event
	subs map[chan Event]struct{}
}

func newEventLog() *eventLog { return &eventLog{subs: map[chan Event]struct{}{}} }

func (l *eventLog) emit(ev Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Times are made here so that the order of events is the order of their times.
	ev.Time = time.Now()
	if len(l.ring) == eventHistory {
		l.ring = append(l.ring[:0:0], l.ring[1:]...)
	}
	l.ring = append(l.ring, ev)
	for ch := range l.subs {
		select {
		case ch <- ev:
		default:
			// A reader this slow would only see a past with holes: end its stream instead.
			delete(l.subs, ch)
			close(ch)
		}
	}
}

// Subscribe gives past events since (zero: none) and then new ones until (zero: for ever) or ctx's end. The channel
// is closed at the end, and when the reader is too slow.
func (e *Engine) Subscribe(ctx context.Context, since, until time.Time) <-chan Event {
	return e.subscribe(ctx, e.events, since, until)
}

// SubscribePods gives the new events of pods of many and their containers, as Subscribe does.
func (e *Engine) SubscribePods(ctx context.Context) <-chan Event {
	return e.subscribe(ctx, e.podEvents, time.Time{}, time.Time{})
}

func (e *Engine) subscribe(ctx context.Context, l *eventLog, since, until time.Time) <-chan Event {
	ch := make(chan Event, eventHistory+eventBacklog)
	l.mu.Lock()
	if !since.IsZero() || !until.IsZero() {
		for _, ev := range l.ring {
			if !ev.Time.Before(since) && (until.IsZero() || !ev.Time.After(until)) {
				ch <- ev
			}
		}
	}
	if !until.IsZero() && !until.After(time.Now()) {
		l.mu.Unlock()
		close(ch)
		return ch
	}
	l.subs[ch] = struct{}{}
	l.mu.Unlock()

	e.work.Add(1)
	go func() {
		defer e.work.Done()
		var end <-chan time.Time
		if !until.IsZero() {
			t := time.NewTimer(time.Until(until))
			defer t.Stop()
			end = t.C
		}
		select {
		case <-ctx.Done():
		case <-end:
		case <-e.ctx.Done():
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := l.subs[ch]; ok {
			delete(l.subs, ch)
			close(ch)
		}
	}()
	return ch
}

// emit tells of a container; extra are pairs of attributes. c.mu must not be held.
func (e *Engine) emit(c *container, action string, extra ...string) {
	c.mu.Lock()
	attrs := maps.Clone(c.rec.Run.Labels)
	if attrs == nil {
		attrs = map[string]string{}
	}
	attrs["name"], attrs["image"] = c.rec.Name, c.rec.Spec.Image
	c.mu.Unlock()
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	ev := Event{Type: "container", Action: action, ID: c.id, Attributes: attrs}
	if c.group == nil {
		e.events.emit(ev)
		return
	}
	info := e.podInfo(c.group)
	ev.Pod = &info
	e.podEvents.emit(ev)
}

// emitPod tells of a pod itself: create and start when it is there, die when it isn't ready any more, destroy when it is
// gone. p.mu must not be held.
func (e *Engine) emitPod(p *pod, action string) {
	info := e.podInfo(p)
	e.podEvents.emit(Event{Type: "pod", Action: action, ID: p.id, Pod: &info})
}

// emitVolumes tells of each volume that a container begins or ends to use.
func (e *Engine) emitVolumes(c *container, action string) {
	c.mu.Lock()
	mounts := c.rec.Mounts
	c.mu.Unlock()
	for _, m := range mounts {
		switch {
		case m.Type != "volume":
		case action == "mount":
			e.emitOther("volume", action, m.Source, "container", c.id, "destination", m.Target, "driver", "local",
				"propagation", m.Propagation, "read/write", strconv.FormatBool(!m.ReadOnly))
		default:
			e.emitOther("volume", action, m.Source, "container", c.id, "driver", "local")
		}
	}
}

// emitImage tells of an image that is here; its labels are what clients choose events by.
func (e *Engine) emitImage(action string, target image.Descriptor, name string) {
	id, attrs := target.Digest.String(), map[string]string{}
	if img, err := e.loadImage(target, image.Platform{}); err == nil {
		id = img.ID.String()
		maps.Copy(attrs, img.Config.Run.Labels)
	}
	attrs["name"] = name
	e.events.emit(Event{Type: "image", Action: action, ID: id, Attributes: attrs})
}

// emitOther tells of an image, a volume or a network.
func (e *Engine) emitOther(kind, action, id string, extra ...string) {
	attrs := map[string]string{}
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	e.events.emit(Event{Type: kind, Action: action, ID: id, Attributes: attrs})
}
