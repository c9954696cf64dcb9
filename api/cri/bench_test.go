package cri

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fixed gives the same answers whatever is asked: what the protocol costs without a runtime.
type fixed struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	pods       *runtimeapi.ListPodSandboxResponse
	containers *runtimeapi.ListContainersResponse
	stats      *runtimeapi.ListContainerStatsResponse
}

func (f *fixed) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return f.pods, nil
}

func (f *fixed) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return f.containers, nil
}

func (f *fixed) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return f.stats, nil
}

// What a kubelet asks each second of a full node, and what the same answers cost that are there already.
func BenchmarkLists(b *testing.B) {
	l := newLocal(b, Options{})
	for i := range 110 {
		p := l.podConfig()
		p.Metadata.Name, p.Metadata.Uid = fmt.Sprint("p", i), fmt.Sprint("u", i)
		p.Labels = map[string]string{"io.kubernetes.pod.name": p.Metadata.Name, "io.kubernetes.pod.uid": p.Metadata.Uid}
		pod, err := l.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: p})
		if err != nil {
			b.Fatal(err)
		}
		c, err := l.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: l.containerConfig(), SandboxConfig: p})
		if err == nil {
			_, err = l.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	ours := l.client(b, "ours", l.grpc)
	var f fixed
	var err error
	list := func(c runtimeapi.RuntimeServiceClient, name string) {
		b.Run("pods/"+name, func(b *testing.B) {
			for b.Loop() {
				if f.pods, err = c.ListPodSandbox(b.Context(), &runtimeapi.ListPodSandboxRequest{}); err != nil || len(f.pods.Items) != 111 {
					b.Fatal(err)
				}
			}
		})
		b.Run("containers/"+name, func(b *testing.B) {
			for b.Loop() {
				if f.containers, err = c.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{}); err != nil || len(f.containers.Containers) != 111 {
					b.Fatal(err)
				}
			}
		})
		b.Run("stats/"+name, func(b *testing.B) {
			for b.Loop() {
				if f.stats, err = c.ListContainerStats(b.Context(), &runtimeapi.ListContainerStatsRequest{}); err != nil || len(f.stats.Stats) != 111 {
					b.Fatal(err)
				}
			}
		})
	}
	list(ours, "ours")
	same := f
	s := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(s, &same)
	list(l.client(b, "fixed", s), "fixed")
}
