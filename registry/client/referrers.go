package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cale/image"
)

// maxReferrers bounds how many referrers of one manifest are looked at.
const maxReferrers = 256

// Referrers lists the manifests in ref's repository that say that they belong
// to the manifest of a digest, of one type of artifact. Registries without the
// API for it keep the list under a tag (distribution-spec 1.1, "referrers tag
// schema").
func (c *Client) Referrers(ctx context.Context, ref image.Reference, subject image.Digest, artifactType string) (list []image.Descriptor, err error) {
	err = c.reading(ctx, ref, canResolve, func(e *endpoint, ref image.Reference) (err error) {
		list, err = e.referrers(ctx, ref, subject, artifactType)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("referrers of %s@%s: %w", ref.FamiliarName(), subject.Short(), err)
	}
	return list, nil
}

func (e *endpoint) referrers(ctx context.Context, ref image.Reference, subject image.Digest, artifactType string) ([]image.Descriptor, error) {
	at := e.url(ref.Path + "/referrers/" + subject.String())
	at.RawQuery = url.Values{"artifactType": {artifactType}}.Encode()
	res, err := e.do(ctx, call{method: http.MethodGet, url: at, header: http.Header{"Accept": {image.MediaTypeIndex}}, scope: pullScope(ref)})
	if err != nil {
		return nil, err
	}
	var raw []byte
	if res.StatusCode == http.StatusOK && mediaType(res.Header) == image.MediaTypeIndex {
		raw, err = io.ReadAll(io.LimitReader(res.Body, image.MaxManifestSize+1))
		res.Body.Close()
		if err == nil && len(raw) > image.MaxManifestSize {
			err = fmt.Errorf("the list is larger than %d bytes", image.MaxManifestSize)
		}
	} else {
		why := refusal(res)
		if errors.Is(why, ErrDenied) || errors.Is(why, ErrUnavailable) || errors.Is(why, ErrTooManyTries) {
			return nil, why
		}
		raw, _, err = e.manifest(ctx, ref.WithTag(strings.Replace(subject.String(), ":", "-", 1)), image.Descriptor{})
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	ix, err := image.ParseIndex(image.MediaTypeIndex, raw)
	if err != nil {
		return nil, err
	}
	var list []image.Descriptor
	for _, d := range ix.Manifests {
		if d.ArtifactType != artifactType {
			continue
		}
		if len(list) == maxReferrers {
			return nil, fmt.Errorf("there are more than %d", maxReferrers)
		}
		list = append(list, d)
	}
	return list, nil
}
