// Command caled is Cale's daemon: the engine behind a socket that speaks the Docker Engine API. The command line
// starts it on demand and it ends by itself when it has long had nothing to do; containers need it neither to run
// nor to log.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"cale/api/docker"
	"cale/api/metrics"
	"cale/audit"
	"cale/engine"
	"cale/ondemand"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = ""
)

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "caled:", err)
		os.Exit(1)
	}
}

type settings struct {
	root, run, group string
	config           string
	idle             time.Duration
	onDemand         bool
	registry         []string
	registryOpen     bool
	dns              []string
	metrics          string
	cri              bool
	criStream        string
	allowRestore     bool
	cni              engine.CNI
	cdi              []string
	firewall         string
	nri              bool
	nriSocket        string
	nriPlugins       string
	nriConfig        string
}

func parse(args []string) (s settings, done bool, err error) {
	f := pflag.NewFlagSet("caled", pflag.ContinueOnError)
	f.StringVar(&s.root, "root", env("CALE_ROOT", "/var/lib/cale"), "what outlives a reboot: images, containers, volumes ($CALE_ROOT)")
	f.StringVar(&s.run, "run", env("CALE_RUN", "/run/cale"), "sockets and running state ($CALE_RUN)")
	f.StringVar(&s.config, "config-dir", env("CALE_CONFIG", "/etc/cale"), "what an administrator sets: certs.d, registries.conf, policy.json, runtimes.json, images.json ($CALE_CONFIG)")
	f.StringVar(&s.group, "group", "cale", "the group that may use the socket, if it exists")
	f.DurationVar(&s.idle, "idle", 0, "end after this long with nothing to do (0: never)")
	f.BoolVar(&s.onDemand, "on-demand", false, "end without a word if another caled serves already")
	f.StringSliceVar(&s.registry, "registry", nil, "serve the image store as a registry on this address (host:port)")
	f.BoolVar(&s.registryOpen, "registry-open", false, "let every user of the machine, and the network, use the registry")
	f.StringSliceVar(&s.dns, "dns", nil, "name servers for containers that name none")
	f.StringVar(&s.metrics, "metrics-addr", "", "serve figures in Prometheus' format on http://ADDRESS/metrics (host:port)")
	f.BoolVar(&s.cri, "cri", false, "serve the Kubernetes container runtime interface on RUN/cri.sock too (by the program cale-cri)")
	f.StringVar(&s.criStream, "cri-stream", "127.0.0.1:0", "where exec, attach and port-forward of the CRI are served (host:port)")
	f.BoolVar(&s.allowRestore, "allow-restore", false, "let clients of the CRI restore pods from checkpoints, all of whose makers must be trusted like root")
	f.StringVar(&s.cni.ConfDir, "cni-conf", "/etc/cni/net.d", "where a configuration of CNI plug-ins for pods may be; pods are on Cale's own bridge without one")
	f.StringSliceVar(&s.cni.Bin, "cni-bin", []string{"/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"}, "where CNI plug-ins are")
	f.BoolVar(&s.cni.Required, "cni-required", false, "wait for a CNI configuration instead of using Cale's own bridge")
	f.StringVar(&s.firewall, "firewall", "", `what decides who may reach published ports of networks that don't say themselves (network create --opt cale.firewall=): "published" (the default: who publishes opens), or "host" (the host's own rules for incoming traffic, such as ufw's and firewalld's)`)
	f.StringSliceVar(&s.cdi, "cdi-spec-dir", nil, "where descriptions of devices are (Container Device Interface; default /etc/cdi and /var/run/cdi)")
	f.BoolVar(&s.nri, "nri", false, "let plug-ins of the Node Resource Interface take part in what the CRI does")
	f.StringVar(&s.nriSocket, "nri-socket", "/var/run/nri/nri.sock", "where NRI plug-ins connect")
	f.StringVar(&s.nriPlugins, "nri-plugins", "/opt/nri/plugins", "where NRI plug-ins are that are started with the CRI")
	f.StringVar(&s.nriConfig, "nri-config", "/etc/nri/conf.d", "where the configurations of NRI plug-ins are")
	showVersion := f.BoolP("version", "v", false, "print the version and end")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return s, true, nil
		}
		return s, false, err
	}
	if f.NArg() > 0 {
		return s, false, fmt.Errorf("unexpected argument %q: caled takes flags only", f.Arg(0))
	}
	if *showVersion {
		fmt.Printf("caled version %s, build %s\n", version, commit)
		return s, true, nil
	}
	for _, p := range []*string{&s.root, &s.run, &s.config} {
		if *p, err = filepath.Abs(*p); err != nil {
			return s, false, err
		}
	}
	return s, false, nil
}

func env(key, other string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return other
}

func run(args []string) error {
	s, done, err := parse(args)
	if err != nil || done {
		return err
	}
	if s.cri && serveCRI == nil {
		return becomeCRI(args)
	}
	unix.Umask(0o022)
	// A daemon that mostly waits gives its memory back sooner than Go's default would.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := makeDirs(s); err != nil {
		return err
	}
	e, err := engine.Open(ctx, engine.Config{Root: s.root, Run: s.run, ConfigDir: s.config, CNI: s.cni, CDIDirs: s.cdi, Firewall: s.firewall, DNS: s.dns, Log: log.Printf})
	if s.onDemand && errors.Is(err, engine.ErrConflict) {
		return nil // whoever started this one finds the other's socket
	}
	if err != nil {
		return err
	}
	defer e.Close()

	kept, err := audit.Open(filepath.Join(s.root, "audit.log"))
	if err != nil {
		return err
	}
	defer kept.Close()
	regs := &registries{store: e.Store(), restore: e.LendBlob, upstream: e.RegistryClient, group: s.group, open: s.registryOpen, contained: e.InHostNetwork, file: filepath.Join(s.run, "registries.json")}
	defer regs.close()
	for _, addr := range s.registry {
		if _, err := regs.serve(docker.RegistrySettings{Address: addr}); err != nil {
			return fmt.Errorf("registry: %w", err)
		}
	}
	regs.resume()

	api := docker.New(e, docker.Options{
		Version: version, Commit: commit, Registry: regs, Audit: kept.Record, Builder: ondemand.Builder(s.root, s.run).Dial,
	})
	calls := newCalls(api)
	srv := &http.Server{Handler: calls, ConnContext: peerContext, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 20}
	l, err := listen(s)
	if err != nil {
		return err
	}
	busyCRI := func() bool { return false }
	if s.cri {
		kubernetes, err := serveCRI(e, s, kept)
		if err != nil {
			return err
		}
		defer kubernetes.Close()
		busyCRI = kubernetes.Busy
	}
	failed := make(chan error, 2)
	go func() { failed <- srv.Serve(l) }()
	if s.metrics != "" {
		ml, err := net.Listen("tcp", s.metrics)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		figures := &http.Server{Handler: metrics.Handler(e, version), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 20}
		defer figures.Close()
		go func() { failed <- figures.Serve(ml) }()
	}
	log.Printf("caled %s listens on %s", version, l.Addr())

	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	case <-idle(ctx, s.idle, func() bool { return e.Busy() || calls.active() || regs.busy() || busyCRI() }):
		log.Printf("nothing to do for %s: ending", s.idle)
	}
	// The path goes first: a client that comes now starts the next caled instead of being cut off.
	_ = os.Remove(filepath.Join(s.run, "docker.sock"))
	_ = srv.Close()
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if settled(ending, e) {
		if err := e.Retire(ending); err != nil {
			log.Printf("leaving the machine as it was: %v", err)
		}
	}
	return nil
}

// lastMoment is how long an ending daemon waits for containers that run: one of them may be about to end.
const lastMoment = 500 * time.Millisecond

// settled waits until what is being taken away is gone, and says whether nothing is left. Containers go on without this
// process.
func settled(ctx context.Context, e *engine.Engine) bool {
	begin := time.Now()
	for e.Busy() {
		if e.Live() && time.Since(begin) > lastMoment {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return true
}

func makeDirs(s settings) error {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return fmt.Errorf("root %s: %w", s.root, err)
	}
	if err := os.MkdirAll(s.run, 0o700); err != nil {
		return fmt.Errorf("run %s: %w", s.run, err)
	}
	return nil
}

// listen takes the socket that systemd passed, or makes its own.
func listen(s settings) (net.Listener, error) {
	if l, err := inherited(); l != nil || err != nil {
		return l, err
	}
	path := filepath.Join(s.run, "docker.sock")
	if len(path) > 107 {
		return nil, fmt.Errorf("socket %s: the path is longer than the 107 bytes the kernel takes: choose a shorter --run", path)
	}
	// The engine holds the instance's lock: whoever left this file is dead.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	mode := os.FileMode(0o600)
	if gid, ok := groupID(s.group); ok {
		if err := os.Chown(s.run, 0, gid); err == nil {
			_ = os.Chmod(s.run, 0o710)
			_ = os.Chown(path, 0, gid)
			mode = 0o660
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// idle gives a value once quiet has been true for the whole of d. With d 0 it never does.
func idle(ctx context.Context, d time.Duration, busy func() bool) <-chan struct{} {
	if d <= 0 {
		return nil
	}
	out := make(chan struct{})
	go func() {
		step := max(d/10, 100*time.Millisecond)
		since := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(step):
			}
			if busy() {
				since = time.Now()
			} else if time.Since(since) >= d {
				close(out)
				return
			}
		}
	}()
	return out
}
