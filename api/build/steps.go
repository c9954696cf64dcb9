package build

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/opencontainers/go-digest"

	"cale/image"
)

func stream(text string) map[string]string { return map[string]string{"stream": text} }

// steps words the builder's status as Docker's first builder did, which is
// what clients without BuildKit's protocol show.
type steps struct {
	out   *writer
	quiet bool
	told  map[digest.Digest]told
}

// told is what has been said of a step.
type told struct{ named, cached bool }

// stepName is how the Dockerfile front end names steps: "[stage 2/3] RUN x".
var stepName = regexp.MustCompile(`^\[(?:\S+ )?(\d+)/(\d+)\] (.*)$`)

func (s *steps) show(ch <-chan *client.SolveStatus) {
	s.told = map[digest.Digest]told{}
	for st := range ch {
		if s.quiet {
			continue
		}
		for _, v := range st.Vertexes {
			s.vertex(v)
		}
		for _, l := range st.Logs {
			s.out.send(stream(string(l.Data)))
		}
	}
}

func (s *steps) vertex(v *client.Vertex) {
	m := stepName.FindStringSubmatch(v.Name)
	if m == nil || v.Started == nil && !v.Cached {
		return
	}
	t := s.told[v.Digest]
	if !t.named {
		s.out.send(stream("Step " + m[1] + "/" + m[2] + " : " + written(m[3]) + "\n"))
		t.named = true
	}
	if v.Cached && !t.cached && !strings.HasPrefix(m[3], "FROM ") {
		s.out.send(stream(" ---> Using cache\n"))
		t.cached = true
	}
	s.told[v.Digest] = t
}

// written is a step as its author may have written it: the front end says what
// a tag stands for.
func written(text string) string {
	name, ok := strings.CutPrefix(text, "FROM ")
	if !ok {
		return text
	}
	r, err := image.ParseReference(name)
	if err != nil {
		return text
	}
	if r.Tag != "" {
		r.Digest = image.Digest{}
	}
	return "FROM " + strings.TrimSuffix(r.Familiar(), ":"+image.DefaultTag)
}

// exited finds the command in BuildKit's words for a step that failed.
var exited = regexp.MustCompile(`process "((?:[^"\\]|\\.)*)" did not complete successfully`)

// failure words an error as Docker's builds do.
func failure(err error) map[string]any {
	text, detail := err.Error(), map[string]any{}
	var exit *gateway.ExitError
	if m := exited.FindStringSubmatch(text); m != nil && errors.As(err, &exit) && exit.ExitCode < gateway.UnknownExitStatus {
		detail["code"] = exit.ExitCode
		if command, uerr := strconv.Unquote(`"` + m[1] + `"`); uerr == nil {
			text = "The command '" + command + "' returned a non-zero code: " + strconv.Itoa(int(exit.ExitCode))
		}
	}
	detail["message"] = text
	return map[string]any{"errorDetail": detail, "error": text}
}

// familiar is an image's name as people write it.
func familiar(name string) string {
	r, err := image.ParseReference(name)
	if err != nil {
		return name
	}
	return r.Familiar()
}
