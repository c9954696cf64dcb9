package e2e

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"cale/test/images"
	"cale/test/stack"
)

// TestImageParts: an image of several platforms is listed manifest by manifest, what is stated about it is read out, and
// the image of one platform goes by itself and comes back with a pull.
func TestImageParts(t *testing.T) {
	s := stack.New(t)
	at := otherRegistry(t, "", "")
	push := func(b images.Blob) images.Descriptor {
		t.Helper()
		if err := images.PushBlob(t.Context(), at, "parts", b); err != nil {
			t.Fatal(err)
		}
		return b.Descriptor()
	}
	manifest := func(tag string, v any, mediaType string) images.Descriptor {
		t.Helper()
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b := images.Blob{MediaType: mediaType, Data: raw}
		if tag == "" {
			tag = b.Digest()
		}
		if err := images.PushManifest(t.Context(), at, "parts", tag, b); err != nil {
			t.Fatal(err)
		}
		return b.Descriptor()
	}
	type entry struct {
		images.Descriptor
		Platform    *images.Platform  `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	var index []entry
	for _, arch := range []string{"amd64", "arm64"} {
		p := images.Platform{OS: "linux", Architecture: arch}
		img, err := images.New(images.Spec{Platform: p, Layers: [][]images.File{{{Name: "arch", Data: []byte(arch)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Push(t.Context(), at, "parts:"+arch); err != nil {
			t.Fatal(err)
		}
		index = append(index, entry{img.Manifest.Descriptor(), &p, nil})
	}
	// What BuildKit puts beside an image.
	const kind = "application/vnd.oci.image.manifest.v1+json"
	statement := `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document"}`
	layer := entry{push(images.Blob{MediaType: "application/vnd.in-toto+json", Data: []byte(statement)}), nil, map[string]string{"in-toto.io/predicate-type": "https://spdx.dev/Document"}}
	config := push(images.Blob{MediaType: "application/vnd.oci.image.config.v1+json", Data: []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + layer.Digest + `"]}}`)})
	about := manifest("", map[string]any{"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []entry{layer}}, kind)
	index = append(index, entry{about, &images.Platform{OS: "unknown", Architecture: "unknown"},
		map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index[0].Digest}})
	manifest("1", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index}, "application/vnd.oci.image.index.v1+json")

	name := at + "/parts:1"
	s.Cale("pull", "-q", "--platform", "all", name).OK(t)
	a := newAPI(t, s)
	get := func(path string, want int, into any) string {
		t.Helper()
		status, text := a.call("GET", path, "", "")
		if status != want {
			t.Fatalf("%s: %d %s", path, status, text)
		}
		if into != nil {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		return text
	}
	type part struct {
		ID, Kind        string
		Available       bool
		ImageData       *struct{ Platform images.Platform }
		AttestationData *struct{ For string }
	}
	check := func(parts []part, there ...bool) {
		t.Helper()
		if len(parts) != 3 || parts[0].Kind != "image" || parts[1].ImageData.Platform.Architecture != "arm64" || parts[2].AttestationData.For != index[0].Digest {
			t.Fatalf("%+v", parts)
		}
		for i, want := range there {
			if parts[i].Available != want {
				t.Errorf("%s is available: %t", parts[i].ID, parts[i].Available)
			}
		}
	}
	var list []struct{ Manifests []part }
	get("/images/json?manifests=1&filters="+url.QueryEscape(`{"reference":["`+name+`"]}`), 200, &list)
	check(list[0].Manifests, true, true, true)
	var one struct {
		Manifests  []part
		Descriptor struct{ Digest string }
	}
	get("/images/"+name+"/json?manifests=1", 200, &one)
	check(one.Manifests, true, true, true)
	arm := url.QueryEscape(`{"os":"linux","architecture":"arm64"}`)
	get("/images/"+name+"/json?platform="+arm, 200, &one)
	if one.Descriptor.Digest != index[1].Digest {
		t.Errorf("for arm64 it is %s", one.Descriptor.Digest)
	}

	amd := "platform=" + url.QueryEscape(`{"os":"linux","architecture":"amd64"}`)
	var stated []struct {
		PredicateType string
		Statement     *json.RawMessage
	}
	get("/images/"+name+"/attestations?"+amd, 200, &stated)
	if len(stated) != 1 || stated[0].PredicateType != "https://spdx.dev/Document" || stated[0].Statement != nil {
		t.Errorf("%+v", stated)
	}
	if get("/images/"+name+"/attestations?statement=1&"+amd, 200, &stated); len(stated) != 1 || string(*stated[0].Statement) != statement {
		t.Errorf("%+v", stated)
	}
	for query, want := range map[string]int{"type=other&" + amd: 200, "platform=" + arm: 200, "platform=" + url.QueryEscape(`{"os":"linux","architecture":"riscv64"}`): 404, amd + "&" + amd: 400} {
		if text := get("/images/"+name+"/attestations?"+query, want, nil); want == 200 && text != "[]\n" {
			t.Errorf("%s: %s", query, text)
		}
	}

	if status, text := a.call("DELETE", "/images/"+name+"?platforms="+arm, "", ""); status != 200 || !strings.Contains(text, index[1].Digest) || strings.Contains(text, "Untagged") {
		t.Errorf("%d %s", status, text)
	}
	get("/images/"+name+"/json?manifests=1", 200, &one)
	check(one.Manifests, true, false, true)
	s.Cale("pull", "-q", "--platform", "linux/arm64", name).OK(t)
	get("/images/"+name+"/json?manifests=1", 200, &one)
	check(one.Manifests, true, true, true)
}
