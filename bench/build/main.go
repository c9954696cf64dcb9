// Command build measures what builds take, ours and the peers' (buildkitd with buildctl, docker, podman, which builds by
// Buildah's code) side by side, as far as they are installed. It prints medians of the time on the clock and of the
// processors' (of all processes of a contender), and the most memory that its largest process had.
//
//	go run ./bench/build [-n rounds] [-bin folder] [-only regexp] [-with regexp]
//
// All stores are on one tmpfs. What a build makes becomes an image in the contender's own store, as it does by default.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/bench/peers"
)

var (
	rounds = flag.Int("n", 5, "rounds a contender runs")
	only   = flag.String("only", ".", "the works to be measured")
	big    = flag.Int("big", 500, "megabytes of the large file")
)

func main() { peers.Main(run) }

// builder is a contender that builds.
type builder struct {
	peers.Contender
	env    []string
	build  func(dir string) []string
	remove []string
}

func run(ctx context.Context, bin string) error {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	stacks, done, err := peers.Stacks(ctx, bin, peers.True())
	defer done()
	if err != nil {
		return err
	}
	var list []*builder
	for _, s := range stacks {
		list = append(list, verbs(s))
	}
	if peers.TakesPart("buildkitd") {
		b, stop, err := buildkitd()
		if err == nil {
			defer stop()
			list = append(list, b)
		} else {
			fmt.Printf("  buildkitd cannot take part: %v\n", err)
		}
	}
	for _, w := range works {
		if !wanted.MatchString(w.name) {
			continue
		}
		dir := filepath.Join(peers.Dir, "context")
		if err := w.make(dir); err != nil {
			return err
		}
		fmt.Printf("%s (%d rounds)\n", w.name, *rounds)
		if err := race(ctx, list, w, dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// race has all build from nothing, again after one change, and once more with nothing changed.
func race(ctx context.Context, list []*builder, w work, dir string) error {
	titles := []string{"from nothing", "one thing changed", "nothing changed"}
	all := make([][]peers.Measured, len(titles))
	for i := range all {
		all[i] = make([]peers.Measured, len(list))
	}
	for round := range *rounds {
		for i, b := range list {
			if b.Out {
				continue
			}
			_ = peers.Command(ctx, b.env, b.remove...)
			err := error(nil)
			for k := range titles {
				if k == 1 {
					err = w.change(dir, round*len(list)+i)
				}
				if err == nil {
					err = b.Measure(&all[k][i], func() error { return peers.Command(ctx, b.env, b.build(dir)...) })
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && i == 0 {
				return err
			}
			if err != nil {
				fmt.Printf("  %v\n", err)
				b.Out = true
			}
		}
	}
	var plain []*peers.Contender
	for _, b := range list {
		plain = append(plain, &b.Contender)
	}
	for k, title := range titles {
		peers.Report(title, plain, all[k])
	}
	return nil
}

// verbs are those of a command line like Docker's.
func verbs(s *peers.Stack) *builder {
	b := &builder{Contender: peers.Contender{Name: s.Name, Daemons: s.Daemons}, env: s.Env}
	line := func(args ...string) []string { return append(s.Command[:len(s.Command):len(s.Command)], args...) }
	b.build = func(dir string) []string { return line("build", "-q", "-t", "bench", dir) }
	b.remove = line("system", "prune", "-af")
	switch s.Name {
	case "cale":
		b.Daemons = append(b.Daemons, "cale-build")
	case "docker":
		b.env = append(b.env, "DOCKER_BUILDKIT=0") // its own: the other is buildkitd's
	case "podman":
		b.build = func(dir string) []string { return line("build", "-q", "--layers", "-t", "bench", dir) }
		b.remove = line("rmi", "-af")
	}
	return b
}

// buildkitd starts the one in PATH, with the runc that is there.
func buildkitd() (b *builder, stop func(), err error) {
	for _, name := range []string{"buildkitd", "buildctl", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, nil, err
		}
	}
	dir := peers.Dir + "/buildkit"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	addr := "unix://" + dir + "/sock"
	cmd := exec.Command("buildkitd", "--root", dir+"/root", "--addr", addr, "--oci-worker=true", "--containerd-worker=false")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := peers.Command(context.Background(), nil, "buildctl", "--addr", addr, "debug", "workers")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			stop()
			return nil, nil, err
		}
	}
	b = &builder{Contender: peers.Contender{Name: "buildkitd", Daemons: []string{"buildkitd"}}}
	b.build = func(dir string) []string {
		return []string{"buildctl", "--addr", addr, "build", "--progress", "quiet", "--frontend", "dockerfile.v0", "--local", "context=" + dir,
			"--local", "dockerfile=" + dir, "--output", "type=image,name=localhost/bench"}
	}
	b.remove = []string{"buildctl", "--addr", addr, "prune", "--all"}
	return b, stop, nil
}

// work is what is built.
type work struct {
	name   string
	make   func(dir string) error
	change func(dir string, n int) error
}

var works = []work{
	{"20 steps that run true", steps, func(dir string, n int) error { return write(dir, "one", fmt.Sprint(n)) }},
	{"20,000 files of 1,000 bytes", many, func(dir string, n int) error { return write(dir, "d7/f700", fmt.Sprintf("%1000d", n)) }},
	{"one large file", large, func(dir string, n int) error { return write(dir, "small", fmt.Sprint(n)) }},
}

func write(dir, name, text string) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o755)
}

func steps(dir string) error {
	text := "FROM scratch\nCOPY true /true\nCOPY one /one\n" + strings.Repeat("RUN [\"/true\"]\n", 1)
	for i := 1; i < 20; i++ {
		text += fmt.Sprintf("RUN [\"/true\", \"%d\"]\n", i)
	}
	for name, data := range map[string]string{"Dockerfile": text, "true": string(peers.True()), "one": "1"} {
		if err := write(dir, name, data); err != nil {
			return err
		}
	}
	return nil
}

func many(dir string) error {
	r := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1000)
	for i := range 20_000 {
		_, _ = r.Read(buf)
		if err := write(dir, fmt.Sprintf("d%d/f%d", i/100, i), string(buf)); err != nil {
			return err
		}
	}
	return write(dir, "Dockerfile", "FROM scratch\nCOPY . /\n")
}

func large(dir string) error {
	if err := write(dir, "Dockerfile", "FROM scratch\nCOPY small /\nCOPY large /\n"); err != nil {
		return err
	}
	if err := write(dir, "small", "1"); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{2})
	buf := make([]byte, 1<<20)
	for range *big {
		_, _ = r.Read(buf)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}
