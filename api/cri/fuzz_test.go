package cri

import (
	"context"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// endless is how long a call may take that has nothing to wait for.
const endless = 30 * time.Second

// call is one method of the API, by whatever way it answers.
type call struct {
	name    string
	request reflect.Type // of the message
	do      func(s *Server, ctx context.Context, request proto.Message)
}

// calls are all methods of both services.
func calls() (out []call) {
	for _, service := range []reflect.Type{reflect.TypeFor[runtimeapi.RuntimeServiceServer](), reflect.TypeFor[runtimeapi.ImageServiceServer]()} {
		for i := range service.NumMethod() {
			name := service.Method(i).Name
			t := service.Method(i).Type
			if t.NumIn() != 2 {
				continue
			}
			if t.In(0) == reflect.TypeFor[context.Context]() {
				out = append(out, call{name, t.In(1).Elem(), func(s *Server, ctx context.Context, r proto.Message) {
					answers := reflect.ValueOf(s).MethodByName(name).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(r)})
					if err, _ := answers[1].Interface().(error); coded(err) == nil && answers[0].IsNil() {
						panic(name + ": neither an answer nor an error")
					}
				}})
			}
		}
	}
	out = append(out, stream("StreamPodSandboxes", (*Server).StreamPodSandboxes), stream("StreamContainers", (*Server).StreamContainers),
		stream("StreamContainerStats", (*Server).StreamContainerStats), stream("StreamPodSandboxStats", (*Server).StreamPodSandboxStats),
		stream("StreamPodSandboxMetrics", (*Server).StreamPodSandboxMetrics), stream("StreamImages", (*Server).StreamImages), stream("GetContainerEvents", (*Server).GetContainerEvents))
	slices.SortFunc(out, func(a, b call) int { return strings.Compare(a.name, b.name) })
	return out
}

// stream is a method that answers in pieces.
func stream[Q, A any](name string, do func(*Server, *Q, grpc.ServerStreamingServer[A]) error) call {
	return call{name, reflect.TypeFor[Q](), func(s *Server, ctx context.Context, r proto.Message) {
		_ = do(s, any(r).(*Q), &grpc.GenericServerStream[Q, A]{ServerStream: nowhere{ctx: ctx}})
	}}
}

// nowhere is a stream that nobody reads.
type nowhere struct {
	grpc.ServerStream
	ctx context.Context
}

func (n nowhere) Context() context.Context { return n.ctx }
func (n nowhere) SendMsg(any) error        { return nil }

// confine lets a request name what is there, and nothing of this machine's.
func (l *local) confine(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			return true
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			for i := range v.List().Len() {
				l.confine(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			l.confine(v.Message())
		case f.Kind() == protoreflect.StringKind && !f.IsList():
			if s := l.replaced(string(f.Name()), v.String()); s != v.String() {
				m.Set(f, protoreflect.ValueOfString(s))
			}
		}
		return true
	})
}

func (l *local) replaced(field, value string) string {
	switch field {
	case "pod_sandbox_id", "target_id":
		if strings.HasPrefix(value, "p") {
			return l.pod
		}
	case "container_id":
		if strings.HasPrefix(value, "c") {
			return l.container
		}
	case "cgroup_parent", "runtime_handler":
		return ""
	case "log_directory", "host_path", "location", "checkpoint_path", "localhost_ref", "seccomp_profile_path":
		if strings.HasPrefix(value, "/") {
			return filepath.Join(l.dir, "host", filepath.Join("/", value))
		}
	}
	return value
}

// FuzzRequests calls every method with whatever can be decoded as its request: nothing may panic, hang, or leave
// something behind that can't be removed.
func FuzzRequests(f *testing.F) {
	l := newLocal(f, Options{})
	all := calls()
	seeds := map[string]proto.Message{
		"RunPodSandbox":             &runtimeapi.RunPodSandboxRequest{Config: l.podConfig()},
		"CreateContainer":           &runtimeapi.CreateContainerRequest{PodSandboxId: "p", Config: l.containerConfig(), SandboxConfig: l.podConfig()},
		"ExecSync":                  &runtimeapi.ExecSyncRequest{ContainerId: "c", Cmd: []string{"true"}, Timeout: 1},
		"Exec":                      &runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"true"}, Stdout: true},
		"Attach":                    &runtimeapi.AttachRequest{ContainerId: "c", Stdout: true},
		"PortForward":               &runtimeapi.PortForwardRequest{PodSandboxId: "p", Port: []int32{80}},
		"UpdateContainerResources":  &runtimeapi.UpdateContainerResourcesRequest{ContainerId: "c", Linux: &runtimeapi.LinuxContainerResources{CpuQuota: 1000, MemoryLimitInBytes: 1 << 30}},
		"UpdatePodSandboxResources": &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "p", Resources: &runtimeapi.LinuxContainerResources{CpuShares: 2}},
		"ListContainers":            &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: "p", LabelSelector: map[string]string{"a": "b"}}},
		"ListPodSandbox":            &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: "p", State: &runtimeapi.PodSandboxStateValue{State: 1}}},
		"PullImage":                 &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "fuzz/image:latest"}, Auth: &runtimeapi.AuthConfig{Auth: "eA=="}},
		"ImageStatus":               &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "fuzz/image:latest"}, Verbose: true},
		"CheckpointContainer":       &runtimeapi.CheckpointContainerRequest{ContainerId: "c", Location: "/x.tar", Timeout: 1},
		"ContainerStatus":           &runtimeapi.ContainerStatusRequest{ContainerId: "c", Verbose: true},
		"PodSandboxStatus":          &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "p", Verbose: true},
		"StopContainer":             &runtimeapi.StopContainerRequest{ContainerId: "none", Timeout: 1},
	}
	hard := l.containerConfig()
	hard.Mounts = []*runtimeapi.Mount{{HostPath: "/a", ContainerPath: "/b", Propagation: 2}, {ContainerPath: "/i", Readonly: true, Image: hard.Image, ImageSubPath: "etc"}}
	hard.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/x", Permissions: "rwm"}}
	hard.CDIDevices = []*runtimeapi.CDIDevice{{Name: "v.com/c=d"}}
	hard.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("B")}}
	hard.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "root", Capabilities: &runtimeapi.Capability{AddCapabilities: []string{"ALL"}},
		NamespaceOptions: &runtimeapi.NamespaceOption{Pid: 3, TargetId: "p"}, Seccomp: &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "/p"}, MaskedPaths: []string{"/proc/x"}}
	hard.Linux.Resources = &runtimeapi.LinuxContainerResources{CpusetCpus: "0", HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}, Unified: map[string]string{"a": "b"}}
	for i, c := range all {
		raw := []byte(nil)
		if m := seeds[c.name]; m != nil {
			raw, _ = proto.Marshal(m)
		}
		f.Add(uint8(i), raw)
		if c.name == "CreateContainer" {
			raw, _ = proto.Marshal(&runtimeapi.CreateContainerRequest{PodSandboxId: "p", Config: hard, SandboxConfig: l.podConfig()})
			f.Add(uint8(i), raw)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		c := all[int(which)%len(all)]
		r := reflect.New(c.request).Interface().(proto.Message)
		if proto.Unmarshal(raw, r) != nil {
			return
		}
		l.confine(r.ProtoReflect())
		switch q := r.(type) {
		case *runtimeapi.PullImageRequest:
			if q.Image != nil {
				q.Image.Image = "127.0.0.1:1/" + q.Image.Image // where nobody answers
			}
		case *runtimeapi.StopContainerRequest:
			q.Timeout = min(q.Timeout, 1)
		}
		patience := time.Second
		if c.name == "GetContainerEvents" { // it ends with its client only
			patience = 10 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		defer time.AfterFunc(endless, func() {
			debug.SetTraceback("all")
			panic(c.name + " does not end, or what it made can't be removed")
		}).Stop()
		c.do(l.Server, ctx, r)
		l.tidy(t)
	})
}
