package trust

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Edit changes what a policy (nil for none) requires in one scope: "default",
// or one of the transport "docker"; nil requires nothing of its own there any
// more. What it returns is a policy that Parse takes.
func Edit(policy []byte, scope string, requirements json.RawMessage) ([]byte, error) {
	if policy == nil {
		policy = []byte(`{"default":[{"type":"` + TypeAccept + `"}]}`)
	}
	if _, err := Parse(policy); err != nil {
		return nil, err
	}
	var top struct {
		Default    json.RawMessage                       `json:"default"`
		Transports map[string]map[string]json.RawMessage `json:"transports,omitempty"`
	}
	if err := json.Unmarshal(policy, &top); err != nil {
		return nil, err
	}
	switch {
	case scope == "default" && requirements == nil:
		return nil, errors.New("the policy needs a default")
	case scope == "default":
		top.Default = requirements
	case requirements == nil:
		if _, ok := top.Transports["docker"][scope]; !ok {
			return nil, errors.New("the policy has no scope " + clip(scope))
		}
		delete(top.Transports["docker"], scope)
	default:
		if top.Transports == nil {
			top.Transports = map[string]map[string]json.RawMessage{}
		}
		if top.Transports["docker"] == nil {
			top.Transports["docker"] = map[string]json.RawMessage{}
		}
		top.Transports["docker"][scope] = requirements
	}
	raw, err := json.Marshal(top)
	if err != nil {
		return nil, errors.New("the requirements are not valid JSON")
	}
	if _, err := Parse(raw); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
