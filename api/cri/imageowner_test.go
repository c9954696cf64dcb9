package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/test/stack"
)

// set writes a file of the node's settings.
func (l *local) set(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(l.dir, "etc", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *local) pinned(t *testing.T, name string) bool {
	t.Helper()
	st, err := l.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil || st.Image == nil {
		t.Fatalf("%s: %v, %v", name, st, err)
	}
	list, err := l.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Images {
		if i.Id == st.Image.Id && i.Pinned != st.Image.Pinned {
			t.Errorf("%s is pinned by one account only", name)
		}
	}
	return st.Image.Pinned
}

// A kubelet that makes room leaves alone what others than pods named or use, and what the node's settings name.
func TestImagesOfOthers(t *testing.T) {
	name := stack.New(t).Busybox() + ":latest"
	l := newLocal(t, Options{})
	ctx := t.Context()
	pull := func() {
		t.Helper()
		if _, err := l.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string, want codes.Code) {
		t.Helper()
		if _, err := l.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); status.Code(coded(err)) != want {
			t.Errorf("removal of %s: %v, want %s", name, err, want)
		}
	}
	there := func(name string, want bool) {
		t.Helper()
		if st, err := l.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil || (st.Image != nil) != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	// What was made on Docker's side, as by a build.
	if !l.pinned(t, "fuzz/image:latest") {
		t.Error("an image that others named may be taken away")
	}
	remove("fuzz/image:latest", codes.FailedPrecondition)
	there("fuzz/image:latest", true)
	// What a pod wanted.
	pull()
	if l.pinned(t, name) {
		t.Error("an image of pods alone is pinned")
	}
	l.set(t, "images.json", `{"pinned": ["127.0.0.1:*/busybox:*"]}`)
	if !l.pinned(t, name) {
		t.Error("the settings pin it")
	}
	l.set(t, "images.json", `{}`)
	remove(name, codes.OK)
	there(name, false)
	// A name of both sides, whoever was first.
	for _, first := range []bool{true, false} {
		if !first {
			pull()
		}
		if _, _, err := l.engine.Pull(ctx, name, engine.PullOptions{}); err != nil {
			t.Fatal(err)
		}
		if first {
			pull()
		}
		if !l.pinned(t, name) {
			t.Errorf("others pulled it too (%v)", first)
		}
		remove(name, codes.FailedPrecondition)
		if _, err := l.engine.RemoveImage(ctx, name, false, true); err != nil {
			t.Fatal(err)
		}
		there(name, false)
	}
	// Another name of others: that of pods goes, the image stays.
	pull()
	if err := l.engine.TagImage(ctx, name, "mine:latest"); err != nil {
		t.Fatal(err)
	}
	remove(name, codes.OK)
	there(name, false)
	there("mine:latest", true)
	remove("mine:latest", codes.FailedPrecondition)
	if _, err := l.engine.RemoveImage(ctx, "mine:latest", false, true); err != nil {
		t.Fatal(err)
	}
	// A container of others.
	pull()
	id, _, err := l.engine.Create(ctx, engine.Spec{Image: name, Cmd: []string{"true"}, Network: engine.Network{Mode: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	if !l.pinned(t, name) {
		t.Error("a container of others has it")
	}
	remove(name, codes.FailedPrecondition)
	if err := l.engine.Remove(ctx, id, engine.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	remove(name, codes.OK)
	there(name, false)
}

// A namespace of Kubernetes may have a policy of its own, for what is pulled for its pods and for what is here already.
func TestPolicyOfNamespace(t *testing.T) {
	name := stack.New(t).Busybox() + ":latest"
	l := newLocal(t, Options{})
	ctx := t.Context()
	l.set(t, "policies/strict.json", `{"default":[{"type":"reject"}]}`)
	pod := func(namespace string) *runtimeapi.PodSandboxConfig {
		p := l.podConfig()
		p.Metadata.Namespace = namespace
		return p
	}
	pull := func(namespace string) error {
		_, err := l.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}, SandboxConfig: pod(namespace)})
		return coded(err)
	}
	create := func(namespace string) error {
		p := pod(namespace)
		made, err := l.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p})
		if err != nil {
			t.Fatal(err)
		}
		c := l.containerConfig()
		c.Image.Image = name
		_, err = l.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: made.PodSandboxId, Config: c, SandboxConfig: p})
		return coded(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !strings.HasPrefix(status.Convert(err).Message(), "SignatureValidationFailed: ") { // as a kubelet looks for it
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("pull", pull("strict"))
	if err := pull("lax"); err != nil {
		t.Fatal(err)
	}
	refused("container of what is here", create("strict"))
	if err := create("lax"); err != nil {
		t.Error(err)
	}
	l.set(t, "policy.json", `{"default":[{"type":"reject"}]}`)
	l.set(t, "policies/lax.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	if err := pull("lax"); err != nil {
		t.Error(err)
	}
	refused("pull for a namespace without a policy", pull("other"))
	refused("namespace that is no file's name", pull("../policies/lax"))
}

// A registry that can't be had is told as a kubelet knows it.
func TestRegistryUnavailable(t *testing.T) {
	l := newLocal(t, Options{})
	_, err := l.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "127.0.0.1:1/nothing:here"}})
	if !strings.HasPrefix(status.Convert(coded(err)).Message(), "RegistryUnavailable: ") {
		t.Error(err)
	}
}
