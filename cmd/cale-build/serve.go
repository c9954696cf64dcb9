package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	apibuild "cale/api/build"
	"cale/audit"
	"cale/build"
	"cale/build/instance"
	"cale/build/keep"
	"cale/registry/hosts"
)

type settings struct {
	root, run, config string
	buildkit          string // BuildKit's configuration file
	addr, group       string
	idle              time.Duration
	onDemand, alone   bool
	strict            bool // as buildkitd: base images are resolved at their registry first
	labels            map[string]string
	entitlements      []string
	devices           []string
	debug             bool
}

func (s settings) hostDirs() hosts.Dirs {
	return append(hosts.Dirs{filepath.Join(s.config, "certs.d")}, hosts.System...)
}

func parse(args []string) (s settings, err error) {
	f := pflag.NewFlagSet("cale-build serve", pflag.ContinueOnError)
	f.StringVar(&s.root, "root", env("CALE_ROOT", "/var/lib/cale"), "where images and the build cache are ($CALE_ROOT)")
	f.StringVar(&s.run, "run", env("CALE_RUN", "/run/cale"), "sockets and running state ($CALE_RUN)")
	f.StringVar(&s.config, "config-dir", env("CALE_CONFIG", "/etc/cale"), "what an administrator sets: certs.d, buildkitd.toml ($CALE_CONFIG)")
	f.StringVar(&s.buildkit, "config", "", "BuildKit's configuration file (default CONFIG-DIR/buildkitd.toml, if it is there)")
	f.StringVar(&s.addr, "addr", "", "socket to serve on (unix://PATH; default RUN/build.sock)")
	f.StringVar(&s.group, "group", "cale", "the group that may use the socket, if it exists")
	f.DurationVar(&s.idle, "idle", 0, "end after this long with nothing to do (0: never)")
	f.BoolVar(&s.onDemand, "on-demand", false, "end without a word if another builder serves already")
	f.BoolVar(&s.alone, "alone", false, "open the image store without an engine, which must not run")
	f.BoolVar(&s.strict, "resolve-remote", false, "ask registries for base images although they are in the image store, as buildkitd does")
	f.StringToStringVar(&s.labels, "label", nil, "labels of the worker")
	f.StringSliceVar(&s.entitlements, "allow-insecure-entitlement", nil, "what builds may be granted: network.host, security.insecure, device")
	f.StringSliceVar(&s.devices, "cdi-spec-dir", nil, "where devices are described (default /etc/cdi, /var/run/cdi, /etc/buildkit/cdi)")
	f.BoolVar(&s.debug, "debug", false, "log more")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q: serve takes flags only", f.Arg(0))
	}
	for _, p := range []*string{&s.root, &s.run, &s.config} {
		if *p, err = filepath.Abs(*p); err != nil {
			return s, err
		}
	}
	if s.addr == "" {
		s.addr = "unix://" + filepath.Join(s.run, "build.sock")
	}
	return s, nil
}

func serve(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	exactModes()
	if err := ownMounts(ctx, s); err != nil {
		return err
	}
	logrus.SetFormatter(build.Log{Formatter: &logrus.TextFormatter{FullTimestamp: true, DisableColors: true}})
	logrus.SetLevel(logrus.WarnLevel)
	if s.debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
	if err := os.MkdirAll(filepath.Join(s.run, "build"), 0o700); err != nil {
		return err
	}
	lock, err := instance.Lock(s.run)
	if s.onDemand && errors.Is(err, instance.ErrAlive) {
		return nil // whoever started this one finds the other's socket
	}
	if err != nil {
		return err
	}
	defer lock.Close()

	k, err := openKeeper(ctx, s)
	if err != nil {
		return err
	}
	defer k.close()
	b, err := open(ctx, s, k)
	if err != nil {
		return err
	}
	defer func() {
		if err := b.Close(); err != nil {
			log.Printf("end: %v", err)
		}
	}()
	l, err := listen(s)
	if err != nil {
		return err
	}
	counted := &counting{Listener: l}
	split := apibuild.NewSplit(counted)
	split.Lines = (&lines{ctx: ctx, settings: s, builder: split, lend: b.Lend}).take
	docker := &http.Server{Handler: apibuild.NewServer(split, b.Sessions(), b.Mounts()), ReadHeaderTimeout: 30 * time.Second, ConnContext: apibuild.ConnContext}
	failed := make(chan error, 3)
	go func() { failed <- b.Server().Serve(split.HTTP2()) }()
	go func() { failed <- docker.Serve(split.HTTP1()) }()
	go func() { failed <- split.Run() }()
	go k.watch(ctx, b, counted)
	log.Printf("cale-build %s listens on %s", version, s.addr)
	select {
	case <-ctx.Done():
	case err = <-failed:
	case err = <-k.gone:
	case <-counted.idle(ctx, s.idle):
	}
	// The path goes first: a client that comes now starts the next builder.
	_ = os.Remove(strings.TrimPrefix(s.addr, "unix://"))
	_ = l.Close()
	return err
}

func open(ctx context.Context, s settings, k keep.Keeper) (*build.Builder, error) {
	o := build.Options{
		Root: s.root, Run: s.run, Keeper: k, Labels: s.labels, Log: log.Printf, PreferLocal: !s.strict,
		HostDirs: s.hostDirs(),
	}
	// Open for as long as this process lives.
	kept, err := audit.Open(filepath.Join(s.root, "audit.log"))
	if err != nil {
		return nil, err
	}
	o.Audit = kept.Record
	set, err := build.ReadSettings(filepath.Join(s.config, "build.toml"))
	if err != nil {
		return nil, err
	}
	o.OwnSyntax = set.Syntax == "builtin"
	file := s.buildkit
	if file == "" {
		file = filepath.Join(s.config, "buildkitd.toml")
		if _, err := os.Stat(file); err != nil {
			file = ""
		}
	}
	if file != "" {
		c, err := config.LoadFile(file)
		if err != nil {
			return nil, fmt.Errorf("configuration %s: %w", file, err)
		}
		o.Config = c
	}
	if len(s.devices) > 0 {
		o.Config.CDI.SpecDirs = s.devices
	}
	switch {
	case len(s.entitlements) > 0:
		o.Config.Entitlements = s.entitlements
	case o.Config.Entitlements == nil && !s.strict:
		// As Docker's engine has it: who may ask for a build may ask for
		// containers that have as much.
		o.Config.Entitlements = []string{"network.host"}
	}
	return build.Open(ctx, o)
}

func listen(s settings) (net.Listener, error) {
	path, ok := strings.CutPrefix(s.addr, "unix://")
	if !ok {
		return nil, fmt.Errorf("address %s: only unix://PATH can be served", s.addr)
	}
	if len(path) > 107 {
		return nil, fmt.Errorf("socket %s: the path is longer than the 107 bytes the kernel takes", path)
	}
	// This process holds the instance's lock: whoever left this file is dead.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// It is made where nobody else gets, and comes to its place with its mode.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// By descriptor, as this path is longer than the one that was asked for.
	made := fmt.Sprintf("/proc/self/fd/%d/socket", d.Fd())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	mode := os.FileMode(0o600)
	if g, err := user.LookupGroup(s.group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil && os.Chown(made, 0, gid) == nil {
			mode = 0o660
		}
	}
	if err = os.Chmod(made, mode); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// exactModes has files made with the modes that are asked for, as BuildKit
// expects of the process that it is in: what a Dockerfile makes is not to depend
// on who started the builder.
func exactModes() {
	unix.Umask(0)
	fscopy.UmaskIsZero = true
}

// counting counts a listener's connections.
type counting struct {
	net.Listener
	open atomic.Int64
	last atomic.Int64 // when the last one ended, in nanoseconds since 1970
}

// Accept implements net.Listener.
func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedConn{Conn: conn, c: c}, nil
}

type countedConn struct {
	net.Conn
	c      *counting
	closed atomic.Bool
}

// NetConn is the connection itself.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.c.last.Store(time.Now().UnixNano())
		c.c.open.Add(-1)
	}
	return c.Conn.Close()
}

// idle is closed when there has been no connection for d; with d 0, never.
func (c *counting) idle(ctx context.Context, d time.Duration) <-chan struct{} {
	if d <= 0 {
		return nil
	}
	out := make(chan struct{})
	c.last.Store(time.Now().UnixNano())
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(d/10, 100*time.Millisecond)):
			}
			if c.open.Load() == 0 && time.Since(time.Unix(0, c.last.Load())) >= d {
				close(out)
				return
			}
		}
	}()
	return out
}
