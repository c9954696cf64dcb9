package cri

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Hazard class T: whoever writes a checkpoint may be root by it, so it takes an administrator's word; and asking is on
// record.
func TestRestoreIsNotAllowedUnasked(t *testing.T) {
	var records []string
	s := &Server{opts: Options{Audit: func(action, object string, powers []string, err error) {
		records = append(records, action+" "+object+" "+strings.Join(powers, " ")+": "+err.Error())
	}}}
	_, err := s.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: "/from/elsewhere",
		Config: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns"}}})
	if status.Code(coded(err)) != codes.PermissionDenied || !strings.Contains(err.Error(), "--allow-restore") {
		t.Errorf("error %v", err)
	}
	if len(records) != 1 || !strings.HasPrefix(records[0], "pod.restore ns/p checkpoint=/from/elsewhere: restoring from checkpoints is not allowed") {
		t.Errorf("on record: %q", records)
	}
}
