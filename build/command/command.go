package command

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/moby/buildkit/client"
	buildctl "github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"

	"cale/atomicfile"
	"cale/build"
	"cale/build/lent"
)

// Streams are the command's.
type Streams struct {
	In       io.Reader
	Out, Err *os.File
}

// Builder gives a connection to the builder; alone asks for one in this
// process. closer ends it.
type Builder func(ctx context.Context, root, run string, alone bool) (dial func(context.Context) (net.Conn, error), closer func() error, err error)

// Command is a command line of cale build.
type Command struct {
	flags *flags
	where string
	opt   *client.SolveOpt // once it is prepared
	lend  Lend
}

// Lend has a builder in this process read a session's folders directly until
// the function that it returns is called.
type Lend func(session string, folders map[string]lent.Folder) (done func())

// Lends is set where the builder is in this process.
func (c *Command) Lends(l Lend) { c.lend = l }

// Parse reads a command line that was written at a place; help, if it is asked
// for, goes to out.
func Parse(args []string, out io.Writer, at Place) (*Command, error) {
	f, where, err := parse(args, out, at)
	if err != nil {
		return nil, err
	}
	return &Command{flags: f, where: where}, nil
}

// Plain tells whether the command needs nothing of the process that it was
// written in but a folder, so that it may be carried out by another.
func (c *Command) Plain(stderr *os.File) bool {
	f := c.flags
	for _, list := range [][]string{f.secrets, f.ssh, f.outputs, f.cacheFrom, f.cacheTo, f.contexts} {
		if len(list) > 0 {
			return false
		}
	}
	return c.where != "-" && f.file != "-" && !isRemote(f.at, c.where) && f.iidfile == "" && f.metadataFile == "" &&
		f.call == "build" && f.onError == "fail" && !f.daemonless && (f.quiet || f.progress != "tty" && !isTerminal(stderr))
}

// Of tells whether the command is for the builder of root and run.
func (c *Command) Of(root, run string) bool { return c.flags.root == root && c.flags.run == run }

// Alone tells whether the builder is to be in this process.
func (c *Command) Alone() bool { return c.flags.daemonless }

// Prepare opens all that the command line names.
func (c *Command) Prepare(stdin io.Reader) error {
	f := c.flags
	attrs, err := f.attrs()
	if err != nil {
		return err
	}
	in, err := f.read(c.where, stdin, attrs)
	if err != nil {
		return err
	}
	if c.opt, err = f.solveOpt(attrs); err == nil {
		in.solve(c.opt)
	}
	return err
}

// Run is cale build, once it is prepared.
func (c *Command) Run(ctx context.Context, s Streams, open Builder) error {
	f := c.flags
	dial, closer, err := open(ctx, f.root, f.run, f.daemonless)
	if err != nil {
		return err
	}
	for _, a := range f.mountsFrom {
		if err := importMounts(ctx, dial, a); err != nil {
			return errors.Join(err, closer())
		}
	}
	done, err := c.lent(ctx)
	if err == nil {
		err = f.build(ctx, s, dial, c.opt)
		done()
	}
	for _, a := range f.mountsTo {
		if err == nil {
			err = exportMounts(ctx, dial, a)
		}
	}
	return errors.Join(err, closer())
}

// lent lends the folders that this process reads itself.
func (c *Command) lent(ctx context.Context) (done func(), err error) {
	folders := map[string]lent.Folder{}
	for name, fs := range c.opt.LocalMounts {
		if f, ok := fs.(lent.Folder); ok {
			folders[name] = f
		}
	}
	if c.lend == nil || len(folders) == 0 {
		return func() {}, nil
	}
	s, err := session.NewSession(context.WithoutCancel(ctx), "")
	if err != nil {
		return nil, err
	}
	c.opt.SharedSession = s
	return c.lend(s.ID(), folders), nil
}

func (f *flags) build(ctx context.Context, s Streams, dial func(context.Context) (net.Conn, error), opt *client.SolveOpt) error {
	c, err := client.New(ctx, "unix:///builder", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	if err != nil {
		return err
	}
	defer c.Close()
	if !f.noCacheMounts {
		ctx = metadata.AppendToOutgoingContext(ctx, build.KeepCacheMounts, "1")
	}
	display, err := f.display(s)
	if err != nil {
		return err
	}
	status := make(chan *client.SolveStatus)
	var answer map[string][]byte
	var done *client.SolveResponse
	var group errgroup.Group
	shown := make(chan struct{})
	visible, last := untilFailed(status, shown)
	group.Go(func() error {
		defer close(shown)
		// What is shown outlives the request's end: how it failed is to be seen.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), visible)
		return err
	})
	// No command shows what was built when, and keeping it takes as long as a
	// build of which all is cached.
	opt.Internal = true
	group.Go(func() (err error) {
		if f.call == "build" && f.onError == "fail" {
			done, err = c.Solve(ctx, nil, *opt, status)
			return err
		}
		done, err = c.Build(ctx, *opt, "cale", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			req := request(opt)
			req.Evaluate = f.onError == "shell" // its steps run now, not when the result is exported
			r, err := g.Solve(ctx, req)
			if err == nil && f.call != "build" {
				answer = r.Metadata
			}
			if err != nil && f.onError == "shell" && ctx.Err() == nil {
				last()
				if e := f.shell(ctx, s, g, err); e != nil {
					err = errors.Join(err, e)
				}
			}
			return r, err
		}, status)
		return err
	})
	if err := group.Wait(); err != nil {
		for _, src := range errdefs.Sources(err) {
			_ = src.Print(s.Err)
		}
		if strings.HasPrefix(err.Error(), "failed to solve: ") {
			return err
		}
		return fmt.Errorf("failed to solve: %w", err)
	}
	if f.call != "build" {
		return f.answered(s, answer)
	}
	return f.finish(s, done.ExporterResponse)
}

// request is the front end's part of what is asked.
func request(opt *client.SolveOpt) gateway.SolveRequest {
	r := gateway.SolveRequest{Frontend: opt.Frontend, FrontendOpt: opt.FrontendAttrs}
	for _, c := range opt.CacheImports {
		r.CacheImports = append(r.CacheImports, gateway.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	return r
}

func (f *flags) display(s Streams) (progressui.Display, error) {
	mode := f.progress
	if f.quiet || f.call != "build" && mode == "auto" {
		mode = "quiet"
	}
	return progressui.NewDisplay(s.Err, progressui.DisplayMode(mode))
}

// solveOpt is the request but for its inputs.
func (f *flags) solveOpt(attrs map[string]string) (*client.SolveOpt, error) {
	o := &client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, AllowedEntitlements: f.allow}
	if f.network == "host" {
		o.AllowedEntitlements = append(o.AllowedEntitlements, "network.host")
	}
	logins, err := f.at.Logins()
	if err != nil {
		return nil, err
	}
	o.Session = append(o.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(logins),
	}))
	if len(f.secrets) > 0 {
		p, err := buildctl.ParseSecret(f.secrets)
		if err != nil {
			return nil, err
		}
		o.Session = append(o.Session, p)
	}
	if len(f.ssh) > 0 {
		agents, err := buildctl.ParseSSH(f.ssh)
		if err != nil {
			return nil, err
		}
		p, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, err
		}
		o.Session = append(o.Session, p)
	}
	if f.mountsFrom, f.cacheFrom, err = archives(f.cacheFrom, "src"); err != nil {
		return nil, err
	}
	if f.mountsTo, f.cacheTo, err = archives(f.cacheTo, "dest"); err != nil {
		return nil, err
	}
	if o.CacheImports, err = buildctl.ParseImportCache(references(f.cacheFrom)); err != nil {
		return nil, err
	}
	if o.CacheExports, err = buildctl.ParseExportCache(references(f.cacheTo)); err != nil {
		return nil, err
	}
	if f.call != "build" {
		kind, ok := map[string]string{"check": lint.RequestLint, "outline": outline.SubrequestsOutlineDefinition.Name, "targets": targets.SubrequestsTargetsDefinition.Name}[f.call]
		if !ok {
			return nil, fmt.Errorf("invalid --call %q: build, check, outline or targets", f.call)
		}
		attrs["requestid"], attrs["frontend.caps"] = kind, "moby.buildkit.frontend.subrequests"
		return o, nil
	}
	o.Exports, err = f.exports()
	return o, err
}

// references writes a bare reference as the cache in a registry that it means.
func references(list []string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		if !strings.Contains(v, "=") {
			v = "type=registry,ref=" + v
		}
		out = append(out, v)
	}
	return out
}

// answered shows what the front end said about the Dockerfile.
func (f *flags) answered(s Streams, answer map[string][]byte) error {
	if text := answer["result.txt"]; len(text) > 0 {
		fmt.Fprint(s.Out, string(text))
	} else if f.call == "check" {
		fmt.Fprintln(s.Out, "Check complete, no warnings found.")
	}
	if code := strings.TrimSpace(string(answer["result.statuscode"])); code != "" && code != "0" {
		return ErrFindings
	}
	return nil
}

// ErrFindings says that a check found something, which has been shown.
var ErrFindings = errors.New("the check found problems")

// finish writes the files that were asked for.
func (f *flags) finish(s Streams, response map[string]string) error {
	id := response[exptypes.ExporterImageConfigDigestKey]
	if id == "" {
		id = response[exptypes.ExporterImageDigestKey]
	}
	if f.iidfile != "" && id != "" {
		if err := atomicfile.Write(f.iidfile, []byte(id), 0o644, false); err != nil {
			return err
		}
	}
	if f.metadataFile != "" {
		if err := writeMetadata(f.metadataFile, response); err != nil {
			return err
		}
	}
	if f.quiet && id != "" {
		fmt.Fprintln(s.Out, id)
	}
	return nil
}

// writeMetadata writes the result's facts as buildx does: values that are JSON
// in base64 are shown as JSON.
func writeMetadata(path string, response map[string]string) error {
	out := map[string]any{}
	for k, v := range response {
		out[k] = v
		raw, err := base64.StdEncoding.DecodeString(v)
		var object map[string]any
		if err == nil && json.Unmarshal(raw, &object) == nil && len(object) > 0 {
			out[k] = json.RawMessage(raw)
		}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o644, false)
}
