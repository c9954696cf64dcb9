// Package command is the command line of a build: the flags of docker buildx
// build, the context, the progress that is shown, and what comes of it.
package command

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// flags are what was asked for.
type flags struct {
	at                                  Place
	file, target, iidfile, metadataFile string
	tags, buildArgs, contexts           []string
	secrets, ssh, platforms             []string
	labels, annotations, outputs        []string
	cacheFrom, cacheTo                  []string
	noCacheFilter, addHosts, ulimits    []string
	allow, attest                       []string
	provenance, sbom                    string
	progress, network, shmSize          string
	cgroupParent, call, onError         string
	noCache, pull, push, load           bool
	quiet, check, daemonless            bool
	noCacheMounts                       bool
	root, run                           string
	mountsFrom, mountsTo                []mountsFile // cut from cacheFrom, cacheTo
}

const usage = `Usage:  cale build [OPTIONS] PATH | URL | -

Build an image from a Dockerfile

Options:
`

// parse reads the command line; done says that help was all that was wanted.
func parse(args []string, out io.Writer, at Place) (f *flags, context string, err error) {
	f = &flags{at: at}
	envOr := func(name, other string) string {
		if v, _ := at.Env(name); v != "" {
			return v
		}
		return other
	}
	p := pflag.NewFlagSet("build", pflag.ContinueOnError)
	p.SetOutput(io.Discard)
	p.StringVarP(&f.file, "file", "f", "", "name of the Dockerfile (default: \"PATH/Dockerfile\"; \"-\" reads it from the standard input)")
	p.StringArrayVarP(&f.tags, "tag", "t", nil, "name and optionally a tag of the image (format: \"name:tag\")")
	p.StringVar(&f.target, "target", "", "set the target build stage to build")
	p.StringArrayVar(&f.buildArgs, "build-arg", nil, "set build-time variables (KEY[=VALUE])")
	p.StringArrayVar(&f.contexts, "build-context", nil, "additional build contexts (e.g., name=path)")
	p.StringArrayVar(&f.secrets, "secret", nil, "secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")")
	p.StringArrayVar(&f.ssh, "ssh", nil, "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")")
	p.StringArrayVar(&f.platforms, "platform", nil, "set target platform for build")
	p.StringArrayVar(&f.labels, "label", nil, "set metadata for an image")
	p.StringArrayVar(&f.annotations, "annotation", nil, "add annotation to the image")
	p.StringArrayVarP(&f.outputs, "output", "o", nil, "output destination (format: \"type=local,dest=path\")")
	p.BoolVar(&f.push, "push", false, "shorthand for \"--output=type=registry\"")
	p.BoolVar(&f.load, "load", false, "keep the image in the image store, which is the default")
	p.StringVar(&f.metadataFile, "metadata-file", "", "write build result metadata to a file")
	p.StringVar(&f.iidfile, "iidfile", "", "write the image ID to a file")
	p.StringArrayVar(&f.cacheFrom, "cache-from", nil, "external cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\"; \"type=mounts,src=FILE\" for cache mounts)")
	p.StringArrayVar(&f.cacheTo, "cache-to", nil, "cache export destinations (e.g., \"user/app:cache\", \"type=local,dest=path/to/dir\"; \"type=mounts,dest=FILE[,id=ID]\" for cache mounts)")
	p.BoolVar(&f.noCache, "no-cache", false, "do not use cache when building the image")
	p.BoolVar(&f.noCacheMounts, "no-cache-mounts", false, "with --no-cache and --no-cache-filter, empty the cache mounts of the steps too")
	p.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "do not cache specified stages")
	p.BoolVar(&f.check, "check", false, "shorthand for \"--call=check\"")
	p.StringVar(&f.call, "call", "build", "set method for evaluating build (\"check\", \"outline\", \"targets\")")
	p.StringVar(&f.network, "network", "", "set the networking mode for the RUN instructions (\"default\", \"host\", \"none\")")
	p.StringArrayVar(&f.addHosts, "add-host", nil, "add a custom host-to-IP mapping (format: \"host:ip\")")
	p.StringVar(&f.shmSize, "shm-size", "", "shared memory size for build containers")
	p.StringArrayVar(&f.ulimits, "ulimit", nil, "ulimit options")
	p.StringVar(&f.cgroupParent, "cgroup-parent", "", "set the parent cgroup for the RUN instructions during build")
	p.StringArrayVar(&f.allow, "allow", nil, "allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\")")
	p.StringArrayVar(&f.attest, "attest", nil, "attestation parameters (format: \"type=sbom,generator=image\")")
	p.StringVar(&f.provenance, "provenance", "", "shorthand for \"--attest=type=provenance\"")
	p.StringVar(&f.sbom, "sbom", "", "shorthand for \"--attest=type=sbom\"")
	p.Lookup("provenance").NoOptDefVal, p.Lookup("sbom").NoOptDefVal = "true", "true"
	p.BoolVar(&f.pull, "pull", false, "always attempt to pull all referenced images")
	p.StringVar(&f.progress, "progress", envOr("BUILDKIT_PROGRESS", "auto"), "set type of progress output (\"auto\", \"plain\", \"tty\", \"rawjson\", \"quiet\"); keeps the last value set")
	p.BoolVarP(&f.quiet, "quiet", "q", false, "suppress the build output and print image ID on success")
	p.StringVar(&f.onError, "on-error", "fail", "what to do when a step fails (\"fail\", \"shell\": a shell in the step)")
	p.BoolVar(&f.daemonless, "daemonless", false, "build in this process, without builder or engine")
	p.Bool("force-rm", false, "always remove intermediate containers")
	p.Bool("rm", true, "remove intermediate containers after a successful build")
	for _, n := range []string{"force-rm", "rm"} { // there are none to be left over
		p.Lookup(n).Hidden = true
	}
	p.StringVar(&f.root, "root", envOr("CALE_ROOT", "/var/lib/cale"), "")
	p.StringVar(&f.run, "run", envOr("CALE_RUN", "/run/cale"), "")
	p.Lookup("root").Hidden, p.Lookup("run").Hidden = true, true
	if err := p.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprint(out, usage, p.FlagUsages())
		}
		return nil, "", err
	}
	if p.NArg() != 1 {
		return nil, "", fmt.Errorf("'cale build' requires 1 argument\n\nUsage:  cale build [OPTIONS] PATH | URL | -\n\nSee 'cale build --help' for more information")
	}
	if f.check {
		f.call = "check"
	}
	switch {
	case f.onError != "fail" && f.onError != "shell":
		return nil, "", fmt.Errorf("invalid --on-error %q: fail or shell", f.onError)
	case f.onError == "shell" && (f.file == "-" || p.Arg(0) == "-"):
		return nil, "", errors.New("invalid --on-error shell: the shell needs the standard input, which is the Dockerfile or the context")
	}
	return f, p.Arg(0), nil
}

// attrs are the flags that the Dockerfile front end reads.
func (f *flags) attrs() (map[string]string, error) {
	a := map[string]string{}
	put := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	put("target", f.target)
	put("force-network-mode", networkMode(f.network))
	put("cgroup-parent", f.cgroupParent)
	put("platform", strings.Join(f.platforms, ","))
	put("ulimit", strings.Join(f.ulimits, ","))
	put("no-cache", strings.Join(f.noCacheFilter, ","))
	if f.noCache {
		a["no-cache"] = ""
	}
	if f.pull {
		a["image-resolve-mode"] = "pull"
	}
	if f.shmSize != "" {
		n, err := units.RAMInBytes(f.shmSize)
		if err != nil {
			return nil, fmt.Errorf("invalid --shm-size %q: %w", f.shmSize, err)
		}
		put("shm-size", fmt.Sprint(n))
	}
	var hosts []string
	for _, h := range f.addHosts {
		name, ip, ok := strings.Cut(h, "=")
		if !ok {
			name, ip, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || ip == "" {
			return nil, fmt.Errorf("invalid --add-host %q: it is host:ip", h)
		}
		hosts = append(hosts, name+"="+strings.Trim(ip, "[]"))
	}
	put("add-hosts", strings.Join(hosts, ","))
	for _, v := range f.buildArgs {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			if value, ok = f.at.Env(key); !ok {
				continue
			}
		}
		a["build-arg:"+key] = value
	}
	if _, ok := a["build-arg:SOURCE_DATE_EPOCH"]; !ok {
		epoch, _ := f.at.Env("SOURCE_DATE_EPOCH")
		put("build-arg:SOURCE_DATE_EPOCH", epoch)
	}
	for _, v := range f.labels {
		key, value, _ := strings.Cut(v, "=")
		a["label:"+key] = value
	}
	return a, f.attestations(a)
}

func networkMode(s string) string {
	if s == "default" {
		return ""
	}
	return s
}

// attestations are statements about the build that go with its result.
func (f *flags) attestations(a map[string]string) error {
	set := func(kind, params string) error {
		switch params {
		case "", "true":
			params = ""
		case "false":
			delete(a, "attest:"+kind)
			return nil
		}
		a["attest:"+kind] = params
		return nil
	}
	for _, v := range f.attest {
		kind, rest := "", []string(nil)
		for part := range strings.SplitSeq(v, ",") {
			if k, t, ok := strings.Cut(part, "="); ok && k == "type" {
				kind = t
				continue
			}
			rest = append(rest, part)
		}
		if kind == "" {
			return fmt.Errorf("invalid --attest %q: it has no type", v)
		}
		if err := set(kind, strings.Join(rest, ",")); err != nil {
			return err
		}
	}
	for kind, v := range map[string]string{"provenance": f.provenance, "sbom": f.sbom} {
		if v != "" {
			if err := set(kind, v); err != nil {
				return err
			}
		}
	}
	return nil
}
