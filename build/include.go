package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// An INCLUDE instruction stands for the text of other files: fragments of a
// Dockerfile that several share.
//
//	INCLUDE FILE…
//
// FILE is relative to the folder of the file that the instruction is in, and
// comes from where the Dockerfile comes from. A fragment may include others. The
// text is put together before anything else is read of it, so that a fragment
// may hold any instructions: ARGs, whole stages, or a part of one. Parser
// directives ("# syntax") count at the beginning of the Dockerfile alone.

const (
	maxIncludes  = 8       // one in the other
	maxFragments = 1000    // in all: each is asked of the solver
	maxIncluded  = 4 << 20 // of a Dockerfile with all of its fragments, in bytes
)

// including is a client of the front end's for which Dockerfiles have their
// fragments in them.
type including struct{ gateway.Client }

// Solve implements gateway.Client.
func (i including) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	r, err := i.Client.Solve(ctx, req)
	if err != nil || !i.readsDockerfile(req) {
		return r, err
	}
	ref, err := r.SingleRef()
	if err != nil {
		return r, nil
	}
	r.SetRef(&withFragments{Reference: ref, client: i.Client, local: localOf(req.Definition), file: i.filename()})
	return r, nil
}

// built gives BuildKit back its own references: it takes no others in a result. One is in the result if what is built has
// the name of what was read, as that of a remote context has.
func built(r *gateway.Result, err error) (*gateway.Result, error) {
	if err != nil {
		return r, err
	}
	own := func(ref gateway.Reference) gateway.Reference {
		if w, ok := ref.(*withFragments); ok {
			return w.Reference
		}
		return ref
	}
	r.Ref = own(r.Ref)
	for k, ref := range r.Refs {
		r.Refs[k] = own(ref)
	}
	return r, nil
}

func (i including) filename() string {
	if f := i.Client.BuildOpts().Opts["filename"]; f != "" {
		return f
	}
	return dockerui.DefaultDockerfileName
}

// readsDockerfile knows the request by the name that the front end gives it;
// where the Dockerfile is a part of a remote context it reads that.
func (i including) readsDockerfile(req gateway.SolveRequest) bool {
	if req.Definition == nil || req.Frontend != "" {
		return false
	}
	for _, m := range req.Definition.Metadata {
		if strings.HasPrefix(m.Description["llb.customname"], "[internal] load build definition from ") ||
			strings.HasPrefix(m.Description["llb.customname"], "[internal] load git source ") ||
			strings.HasPrefix(m.Description["llb.customname"], "[internal] load remote build context") {
			return true
		}
	}
	return false
}

// localOf is the folder of the client's that a definition reads, or nil.
func localOf(def *pb.Definition) *pb.SourceOp {
	for _, raw := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(raw) != nil {
			continue
		}
		if s := op.GetSource(); s != nil && strings.HasPrefix(s.Identifier, "local://") {
			return s
		}
	}
	return nil
}

// withFragments is where a Dockerfile is read from.
type withFragments struct {
	gateway.Reference
	client gateway.Client
	local  *pb.SourceOp // set if the reference has only the files that were asked for
	file   string
}

// ReadFile implements gateway.Reference.
func (w *withFragments) ReadFile(ctx context.Context, req gateway.ReadRequest) ([]byte, error) {
	raw, err := w.Reference.ReadFile(ctx, req)
	if err != nil || !strings.EqualFold(path.Clean(req.Filename), path.Clean(w.file)) {
		return raw, err
	}
	left := maxFragments
	return w.expand(ctx, raw, req.Filename, 0, &left)
}

// expand replaces the INCLUDE instructions of a file, by at most left fragments.
func (w *withFragments) expand(ctx context.Context, text []byte, file string, depth int, left *int) ([]byte, error) {
	if !bytes.Contains(bytes.ToLower(text), []byte("include")) {
		return text, nil
	}
	tree, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return text, nil // the front end says what is wrong
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	var out bytes.Buffer
	next := 0 // the first line that is not written yet
	for _, n := range tree.AST.Children {
		if !strings.EqualFold(n.Value, "include") {
			continue
		}
		for ; next < n.StartLine-1; next++ {
			out.Write(lines[next])
		}
		next = min(n.EndLine, len(lines))
		if depth == maxIncludes {
			return nil, fmt.Errorf("%s:%d: INCLUDE: more than %d files include one another", file, n.StartLine, maxIncludes)
		}
		names := strings.Fields(n.Original)[1:]
		if len(names) == 0 {
			return nil, fmt.Errorf("%s:%d: INCLUDE requires at least one file", file, n.StartLine)
		}
		for _, name := range names {
			part, err := w.fragment(ctx, path.Join(path.Dir(file), name), depth, left)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: INCLUDE %s: %w", file, n.StartLine, name, err)
			}
			out.Write(part)
			if !bytes.HasSuffix(part, []byte("\n")) {
				out.WriteByte('\n')
			}
			if out.Len() > maxIncluded {
				return nil, fmt.Errorf("%s:%d: INCLUDE: the Dockerfile grows larger than %d bytes", file, n.StartLine, maxIncluded)
			}
		}
	}
	for ; next < len(lines); next++ {
		out.Write(lines[next])
	}
	return out.Bytes(), nil
}

func (w *withFragments) fragment(ctx context.Context, name string, depth int, left *int) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, errors.New("it leads out of the folder")
	}
	if *left--; *left < 0 {
		return nil, fmt.Errorf("the Dockerfile is of more than %d fragments", maxFragments)
	}
	ref := w.Reference
	if w.local != nil {
		r, err := w.ask(ctx, name)
		if err != nil {
			return nil, err
		}
		ref = r
	}
	raw, err := dockerui.ReadFile(ctx, ref, name)
	if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such file") {
		return nil, fmt.Errorf("there is no %s beside the Dockerfile", name)
	}
	if err != nil {
		return nil, err
	}
	return w.expand(ctx, raw, name, depth+1, left)
}

// ask has the client send one more file of its folder.
func (w *withFragments) ask(ctx context.Context, name string) (gateway.Reference, error) {
	a := w.local.Attrs
	paths, err := json.Marshal([]string{name})
	if err != nil {
		return nil, err
	}
	st := llb.Local(strings.TrimPrefix(w.local.Identifier, "local://"), llb.SessionID(a[pb.AttrLocalSessionID]), llb.FollowPaths([]string{name}),
		llb.SharedKeyHint(a[pb.AttrSharedKeyHint]+string(paths)), llb.Differ(llb.DiffNone, false), dockerui.WithInternalName("load fragment "+name))
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	r, err := w.client.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	return r.SingleRef()
}
