package cri

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/audit"
)

// Hazard class T: whoever writes a checkpoint may be root by it, so it takes an administrator's word; and asking is on
// record.
func TestRestoreIsNotAllowedUnasked(t *testing.T) {
	var records []string
	s := &Server{opts: Options{Audit: func(e audit.Entry) {
		records = append(records, e.Action+" "+e.Object+" "+strings.Join(e.Powers, " ")+": "+e.Outcome)
	}}}
	r := &runtimeapi.RestorePodRequest{CheckpointPath: "/from/elsewhere",
		Config: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns"}}}
	_, err := s.unary(t.Context(), r, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/RestorePod"},
		func(ctx context.Context, _ any) (any, error) { return s.RestorePod(ctx, r) })
	if status.Code(coded(err)) != codes.PermissionDenied || !strings.Contains(err.Error(), "--allow-restore") {
		t.Errorf("error %v", err)
	}
	if len(records) != 1 || !strings.HasPrefix(records[0], "RestorePod ns/p checkpoint=/from/elsewhere: restoring from checkpoints is not allowed") {
		t.Errorf("on record: %q", records)
	}
}
