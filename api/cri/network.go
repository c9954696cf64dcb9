package cri

import (
	"math"
	"strconv"
	"strings"
)

// The annotations by which Kubernetes bounds a pod's traffic, in bits a second.
const (
	ingressBandwidth = "kubernetes.io/ingress-bandwidth"
	egressBandwidth  = "kubernetes.io/egress-bandwidth"
)

// networkOffers are the runtime's arguments for CNI plug-ins that a pod's annotations give.
func networkOffers(annotations map[string]string) (map[string]any, error) {
	out := map[string]any{}
	if len(annotations) > 0 {
		out["io.kubernetes.cri.pod-annotations"] = annotations
	}
	limit := map[string]uint64{}
	for key, name := range map[string]string{ingressBandwidth: "ingress", egressBandwidth: "egress"} {
		text, ok := annotations[key]
		if !ok {
			continue
		}
		rate, err := quantity(text)
		if err != nil {
			return nil, invalid("annotation %s: %v", key, err)
		}
		limit[name+"Rate"], limit[name+"Burst"] = rate, math.MaxInt32 // the burst that the kubelet's own plug-in had
	}
	if len(limit) > 0 {
		out["bandwidth"] = limit
	}
	return out, nil
}

// quantity reads a number as Kubernetes writes them: 10M, 1.5Gi, 1e6.
func quantity(text string) (uint64, error) {
	units := []string{"k", "M", "G", "T", "P", "E"}
	factor, number := 1.0, text
	for i, u := range units {
		if rest, ok := strings.CutSuffix(text, strings.ToUpper(u)+"i"); ok {
			factor, number = math.Pow(1024, float64(i+1)), rest
		} else if rest, ok := strings.CutSuffix(text, u); ok {
			factor, number = math.Pow(1000, float64(i+1)), rest
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if n *= factor; err == nil && (n < 1 || n > math.MaxInt64/2) {
		err = strconv.ErrRange
	}
	return uint64(n), err
}
