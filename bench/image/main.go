// Command image measures what pulling and pushing an image takes, ours and the peers' (docker, podman, containerd;
// skopeo for the push) side by side, as far as they are installed, and what the machine's own gzip and sha256sum take
// for the same bytes. It prints medians of the time on the clock and of the processors' (of all processes of a
// contender), and the most memory that was in use.
//
//	go run ./bench/image [-n rounds] [-bin folder]
//
// All stores are on one tmpfs, and the registry is ours, on the loopback, in a process and a store that no contender
// has. Package peers says where.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"cale/bench/peers"
	"cale/test/images"

	"golang.org/x/sys/unix"
)

var (
	rounds = flag.Int("n", 3, "rounds a contender runs")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	stacks, done, err := peers.Stacks(ctx, bin, peers.True())
	defer done()
	if err != nil {
		return err
	}
	source, stop, err := registry(ctx, bin, "source")
	if err != nil {
		return err
	}
	defer stop()
	other, stop, err := registry(ctx, bin, "other")
	if err != nil {
		return err
	}
	defer stop()
	var list []*contender
	for _, s := range stacks {
		list = append(list, verbs(s))
	}
	ctd, stop, err := containerd(ctx)
	if err == nil {
		defer stop()
		list = append(list, ctd)
	} else {
		fmt.Printf("  containerd cannot take part: %v\n", err)
	}
	for i, s := range shapes {
		img, err := s.make()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("image%d:1", i)
		if err := img.Push(ctx, source, name); err != nil {
			return err
		}
		size := 0
		for _, l := range img.Layers {
			size += len(l.Data)
		}
		fmt.Printf("%s (%d MB compressed; %d rounds)\n", s.name, size>>20, *rounds)
		if err := floor(ctx, img); err != nil {
			return err
		}
		if err := pulls(ctx, list, source+"/"+name); err != nil {
			return err
		}
		from := source + "/" + name
		if err := pushes(ctx, "push to where it was pulled from", list[0], img, from, source, name); err != nil {
			return err
		}
		if err := pushes(ctx, "push to another registry", list[0], img, from, other, name); err != nil {
			return err
		}
	}
	return nil
}

// pulls races the pull of an image from nothing, and again with all of it there.
func pulls(ctx context.Context, list []*contender, ref string) error {
	fresh, again := make([]peers.Measured, len(list)), make([]peers.Measured, len(list))
	for range *rounds {
		for i, c := range list {
			if c.Out {
				continue
			}
			err := c.remove(ctx, ref)
			if err == nil {
				err = c.Measure(&fresh[i], func() error { return c.pull(ctx, ref) })
			}
			if err == nil {
				err = c.Measure(&again[i], func() error { return c.pull(ctx, ref) })
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && i == 0 {
				return err
			}
			if err != nil {
				fmt.Printf("  %v\n", err)
				c.Out = true
			}
		}
	}
	report("pull and unpack", list, fresh)
	report("pull with all present", list, again)
	return nil
}

// skopeoCache is where skopeo notes which repositories have a blob.
const skopeoCache = "/var/lib/containers/cache"

// pushes races the push of an image, its layers compressed already, into a registry's repositories that have nothing of
// it. skopeo has it in a folder. Both know repositories of the registry that it came from, and have what these have
// mounted; of another registry none knows anything.
func pushes(ctx context.Context, title string, ours *contender, img *images.Image, from, registry, name string) error {
	list := []*contender{ours, {Contender: peers.Contender{Name: "skopeo"}}}
	layout := peers.Dir + "/layout"
	defer os.RemoveAll(layout)
	if err := img.WriteLayout(layout, "1"); err != nil {
		return err
	}
	all := make([]peers.Measured, len(list))
	for round := range *rounds {
		to := fmt.Sprintf("%s/push%d-%s", registry, time.Now().UnixNano(), name)
		if err := ours.tag(ctx, from, to); err != nil {
			return err
		}
		// What earlier work has not written yet is not to be waited for in this.
		unix.Sync()
		if err := ours.Measure(&all[0], func() error { return ours.push(ctx, to) }); err != nil {
			return err
		}
		if err := ours.untag(ctx, to); err != nil {
			return err
		}
		unix.Sync()
		if !strings.HasPrefix(from, registry) {
			if err := empty(skopeoCache); err != nil {
				return err
			}
		}
		err := list[1].Measure(&all[1], func() error {
			return peers.Command(ctx, nil, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+layout+":1",
				fmt.Sprintf("docker://%s/skopeo%d-%d-%s", registry, round, time.Now().UnixNano(), name))
		})
		if err != nil {
			fmt.Printf("  %v\n", err)
			list = list[:1]
			break
		}
	}
	report(title, list, all)
	return nil
}

// empty covers a folder with one that has nothing in it, for as long as this place is there.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700"); err != nil {
		return fmt.Errorf("cover %s: %w", dir, err)
	}
	return nil
}

// floor tells what the machine's own tools take for an image's layers.
func floor(ctx context.Context, img *images.Image) error {
	dir := peers.Dir + "/floor"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i, l := range img.Layers {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), l.Data, 0o600); err != nil {
			return err
		}
	}
	names := []string{"gzip -dc, one by one", "gzip -dc, two at once", "sha256sum"}
	list, all := make([]*contender, len(names)), make([]peers.Measured, len(names))
	for i, script := range []string{"for f in *; do gzip -dc <$f; done >/dev/null", "ls | xargs -P2 -I@ sh -c 'gzip -dc <@ >/dev/null'", "sha256sum * >/dev/null"} {
		list[i] = &contender{Contender: peers.Contender{Name: names[i]}}
		for range *rounds {
			if err := list[i].Measure(&all[i], func() error { return peers.Command(ctx, nil, "sh", "-c", "cd "+dir+" && "+script) }); err != nil {
				return err
			}
		}
	}
	report("the floor", list, all)
	return nil
}

func report(title string, list []*contender, all []peers.Measured) {
	var plain []*peers.Contender
	for _, c := range list {
		plain = append(plain, &c.Contender)
	}
	peers.Report(title, plain, all)
}

// registry starts an engine of ours that is nothing but a registry, in a folder of that name.
func registry(ctx context.Context, bin, name string) (address string, stop func(), err error) {
	dir := peers.Dir + "/registry/" + name
	s := &peers.Stack{Command: []string{bin + "/cale"}, Env: []string{"CALE_ROOT=" + dir + "/root", "CALE_RUN=" + dir + "/run"}}
	address, err = s.Run(ctx, "registry", "--listen", "127.0.0.1:0", "-q")
	stop = func() { peers.Stop(dir + "/run/caled.pid") }
	if err != nil {
		stop()
		return "", nil, err
	}
	if strings.Contains(address, "\n") {
		return "", stop, errors.New("the registry's address has lines: " + address)
	}
	return address, stop, nil
}
