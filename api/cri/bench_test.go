package cri

import (
	"fmt"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a kubelet asks each second, of a full node.
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
	b.Run("pods", func(b *testing.B) {
		for b.Loop() {
			if r, err := l.ListPodSandbox(b.Context(), &runtimeapi.ListPodSandboxRequest{}); err != nil || len(r.Items) != 111 {
				b.Fatal(err)
			}
		}
	})
	b.Run("containers", func(b *testing.B) {
		for b.Loop() {
			if r, err := l.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{}); err != nil || len(r.Containers) != 111 {
				b.Fatal(err)
			}
		}
	})
}
