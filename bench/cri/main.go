// Command cri measures what a kubelet asks of its container runtime: ours, and containerd 2 with runc if it is in
// $PATH. Both connect pods by the same CNI plug-ins (Debian's containernetworking-plugins).
//
//	go run ./bench/cri [-n pods] [-many pods] [-bin folder]
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/bench/peers"
)

var (
	rounds = flag.Int("n", 15, "pods to make and remove one by one; the median is told")
	many   = flag.Int("many", 110, "pods that are there when listing is measured")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	image, stop, err := serveImages(ctx, bin)
	if err != nil {
		return err
	}
	defer stop()
	var ours []result
	for _, start := range []func(context.Context, string, string) (*node, error){startCale, startContainerd} {
		n, err := start(ctx, bin, image)
		if err != nil && ours != nil {
			fmt.Println(err)
			continue
		}
		if err != nil {
			return err
		}
		got, err := measure(ctx, n, image)
		n.clear(context.WithoutCancel(ctx))
		n.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		fmt.Println(n.name)
		for i, r := range got {
			fmt.Printf("  %-46s %10.2f %s", r.what, r.value, r.unit)
			if ours != nil {
				fmt.Printf("  (ours is %.2f of it)", ours[i].value/r.value)
			}
			fmt.Println()
		}
		if ours == nil {
			ours = got
		}
	}
	return nil
}

// probed is how many commands are run for their processor's time.
const probed = 300

type result struct {
	what  string
	value float64
	unit  string
}

func median(list []time.Duration) float64 {
	slices.Sort(list)
	return float64(list[len(list)/2].Microseconds()) / 1000
}

func timed(list *[]time.Duration, do func() error) error {
	began := time.Now()
	err := do()
	*list = append(*list, time.Since(began))
	return err
}

// measure asks a runtime for everything once to warm it up, and then for the figures.
func measure(ctx context.Context, n *node, image string) ([]result, error) {
	if err := n.pull(ctx, image); err != nil {
		return nil, err
	}
	var up, down, exec []time.Duration
	var probes time.Duration
	for i := range *rounds + 1 {
		var p pod
		if err := timed(&up, func() (err error) { p, err = n.make(ctx, fmt.Sprintf("one-%d", i), image); return err }); err != nil {
			return nil, err
		}
		if i == 0 {
			for range *rounds {
				if err := timed(&exec, func() error { return n.exec(ctx, p) }); err != nil {
					return nil, err
				}
			}
			before := n.processor()
			for range probed {
				if err := n.exec(ctx, p); err != nil {
					return nil, err
				}
			}
			probes = n.processor() - before
		}
		if err := timed(&down, func() error { return n.remove(ctx, p) }); err != nil {
			return nil, err
		}
	}
	out := []result{{"pod of one container, up to started", median(up[1:]), "ms"}, {"stop and remove it", median(down[1:]), "ms"}, {"ExecSync of true", median(exec), "ms"},
		{"processor's time of 1,000 of them", probes.Seconds() * 1000 / probed, "s"}}
	before := n.memory()
	for i := range *many {
		if _, err := n.make(ctx, fmt.Sprintf("many-%d", i), image); err != nil {
			return nil, err
		}
	}
	time.Sleep(2 * time.Second) // garbage collectors and page frees settle
	each := float64(n.memory()-before) / float64(*many)
	for what, list := range map[string]func() error{
		"list pods":       func() error { _, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); return err },
		"list containers": func() error { _, err := n.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); return err },
		"list statistics": func() error { _, err := n.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{}); return err },
	} {
		var took []time.Duration
		for range 30 {
			if err := timed(&took, list); err != nil {
				return nil, err
			}
		}
		out = append(out, result{fmt.Sprintf("%s, %d pods", what, *many), median(took), "ms"})
	}
	slices.SortFunc(out[4:], func(a, b result) int { return strings.Compare(a.what, b.what) })
	return append(out, result{"PSS of an idle pod, its container left out", each, "KiB"}), nil
}
