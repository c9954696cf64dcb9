package engine

import (
	"bytes"
	"context"
	"io"
	"maps"
	"strconv"
	"strings"
	"sync"

	units "github.com/docker/go-units"

	"cale/logfile"
)

// logLimits reads the options of the log driver that bound the file: size in bytes (0: none) and number of files.
func logLimits(l Log) (size int64, files int, err error) {
	files = 1
	for k, v := range l.Options {
		switch k {
		case "max-size":
			if v == "-1" {
				continue
			}
			if size, err = units.RAMInBytes(v); err != nil || size <= 0 {
				return 0, 0, invalid("invalid value for max-size: %q", v)
			}
		case "max-file":
			if files, err = strconv.Atoi(v); err != nil || files < 1 {
				return 0, 0, invalid("max-file cannot be less than 1")
			}
		case "labels", "labels-regex", "env", "env-regex", "tag", "compress", "mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress":
		default:
			driver := l.Driver
			if driver == "" {
				driver = "json-file"
			}
			return 0, 0, invalid("unknown log opt '%s' for %s log driver", k, driver)
		}
	}
	if l.Driver == "local" || l.Driver == "journald" { // which has the file to read from
		// Its defaults; the file itself is as json-file's.
		if size == 0 {
			size = 20 << 20
		}
		if _, said := l.Options["max-file"]; !said {
			files = 5
		}
	}
	return size, files, nil
}

// logAttrs are the labels and variables the client wants with each line.
func logAttrs(rec *record) map[string]string {
	attrs := map[string]string{}
	for name := range strings.SplitSeq(rec.Spec.Log.Options["labels"], ",") {
		if v, ok := rec.Run.Labels[name]; ok && name != "" {
			attrs[name] = v
		}
	}
	for name := range strings.SplitSeq(rec.Spec.Log.Options["env"], ",") {
		for _, kv := range rec.Run.Env {
			if k, v, ok := strings.Cut(kv, "="); ok && k == name && name != "" {
				attrs[name] = v
			}
		}
	}
	if len(attrs) == 0 {
		return nil
	}
	return attrs
}

// logTag is what the journal calls a container: by the option tag, a text with the names that Docker's templates have in
// it, or its short id.
func logTag(rec *record) (string, error) {
	text := rec.Spec.Log.Options["tag"]
	if text == "" {
		text = "{{.ID}}"
	}
	short := func(id string) string { return id[:min(len(id), 12)] }
	id := strings.TrimPrefix(rec.ImageID, "sha256:")
	text = strings.NewReplacer("{{.ID}}", short(rec.ID), "{{.FullID}}", rec.ID, "{{.Name}}", rec.Name, "{{.ImageID}}", short(id), "{{.ImageFullID}}", rec.ImageID,
		"{{.ImageName}}", rec.Spec.Image, "{{.DaemonName}}", "cale").Replace(text)
	if strings.Contains(text, "{{") {
		return "", invalid("invalid log opt tag: %s: there are .ID, .FullID, .Name, .ImageID, .ImageFullID, .ImageName and .DaemonName", rec.Spec.Log.Options["tag"])
	}
	return text, nil
}

// journalFields are what the journal has of a container with each line, by Docker's names.
func journalFields(rec *record) map[string]string {
	tag, err := logTag(rec)
	if err != nil {
		tag = rec.ID[:12]
	}
	fields := map[string]string{"CONTAINER_ID": rec.ID[:12], "CONTAINER_ID_FULL": rec.ID, "CONTAINER_NAME": rec.Name, "CONTAINER_TAG": tag,
		"SYSLOG_IDENTIFIER": tag, "IMAGE_NAME": rec.Spec.Image}
	for k, v := range logAttrs(rec) {
		fields[k] = v
	}
	return fields
}

// Logs reads what a container wrote. Following ends with the container's run.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions) (LogStream, bool, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	tty, driver, r := c.rec.Spec.TTY, c.rec.Spec.Log.Driver, c.run
	c.mu.Unlock()
	if driver == "none" {
		return nil, false, fail(ErrUnsupported, "configured logging driver does not support reading")
	}
	ro := logfile.ReadOptions{Path: c.logPath(), Stdout: o.Stdout, Stderr: o.Stderr, Tail: o.Tail, Since: o.Since, Until: o.Until}
	if o.Follow && r != nil {
		ro.Follow, ro.Stopped = true, r.done
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &logStream{entries: make(chan LogEntry, 64), ctx: ctx, cancel: cancel}
	e.work.Add(1)
	stopped := context.AfterFunc(e.ctx, cancel)
	go func() {
		defer e.work.Done()
		defer stopped()
		err := logfile.Read(ctx, ro, func(en *logfile.Entry) error {
			select {
			case s.entries <- LogEntry{Time: en.Time, Stream: en.Stream.String(), Line: bytes.Clone(en.Line), Continued: en.Continued, Attrs: maps.Clone(en.Attrs)}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
		}
		close(s.entries)
	}()
	return s, tty, nil
}

// logStream hands over what a reader goroutine finds.
type logStream struct {
	entries chan LogEntry
	ctx     context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	err     error
}

func (s *logStream) Next() (LogEntry, error) {
	if entry, ok := <-s.entries; ok {
		return entry, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return LogEntry{}, s.err
	}
	return LogEntry{}, io.EOF
}

func (s *logStream) Close() error {
	s.cancel()
	return nil
}
