package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"cale/image"
)

// ErrNoRange says that a registry can't serve a part of a blob.
var ErrNoRange = errors.New("the registry serves blobs as a whole only")

// BlobRange opens n bytes of a blob of ref's repository from offset on. The
// body ends with an error when it is shorter or longer.
func (c *Client) BlobRange(ctx context.Context, ref image.Reference, desc image.Descriptor, offset, n int64) (body io.ReadCloser, err error) {
	if offset < 0 || n <= 0 || offset > desc.Size-n {
		return nil, fmt.Errorf("blob %s: %d bytes from %d on are outside its %d bytes", desc.Digest, n, offset, desc.Size)
	}
	err = c.reading(ctx, ref, canPull, func(e *endpoint, ref image.Reference) (err error) {
		body, err = e.blobRange(ctx, ref, desc, offset, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: blob %s: %w", ref.FamiliarName(), desc.Digest.Short(), err)
	}
	return body, nil
}

func (e *endpoint) blobRange(ctx context.Context, ref image.Reference, desc image.Descriptor, offset, n int64) (io.ReadCloser, error) {
	res, err := e.do(ctx, call{
		method: http.MethodGet, url: e.url(ref.Path + "/blobs/" + desc.Digest.String()), scope: pullScope(ref),
		header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)}},
	})
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusPartialContent:
		if !rangeFits(res.Header.Get("Content-Range"), offset, offset+n-1, desc.Size) || res.ContentLength >= 0 && res.ContentLength != n {
			res.Body.Close()
			return nil, ErrNoRange
		}
	case http.StatusOK, http.StatusRequestedRangeNotSatisfiable:
		res.Body.Close()
		return nil, ErrNoRange
	default:
		return nil, refusal(res)
	}
	return &sized{ReadCloser: res.Body, left: n, host: e.base.Host}, nil
}

// rangeFits checks "bytes FIRST-LAST/SIZE".
func rangeFits(v string, first, last, size int64) bool {
	v, ok := strings.CutPrefix(v, "bytes ")
	span, total, ok2 := strings.Cut(v, "/")
	from, to, ok3 := strings.Cut(span, "-")
	a, err := strconv.ParseInt(from, 10, 64)
	b, err2 := strconv.ParseInt(to, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || err2 != nil || a != first || b != last {
		return false
	}
	return total == "*" || total == strconv.FormatInt(size, 10)
}

// maxSpare bounds the transfers beyond one for each blob that are open to one
// registry at a time, whoever pulls.
const maxSpare = 6

// spare counts them by domain, for all clients: they share the connections too.
var spare struct {
	sync.Mutex
	open map[string]int
}

// Spare asks for one more transfer of a blob from ref's registry beside the one
// that goes on anyway. It never waits; release gives it back.
func Spare(ref image.Reference) (release func(), ok bool) {
	spare.Lock()
	defer spare.Unlock()
	if spare.open[ref.Domain] >= maxSpare {
		return nil, false
	}
	if spare.open == nil {
		spare.open = map[string]int{}
	}
	spare.open[ref.Domain]++
	return sync.OnceFunc(func() {
		spare.Lock()
		defer spare.Unlock()
		if spare.open[ref.Domain]--; spare.open[ref.Domain] == 0 {
			delete(spare.open, ref.Domain)
		}
	}), true
}
