package docker

import (
	"net/http"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"

	"cale/engine"
	"cale/image/pull"
)

// imageCreate pulls an image, all of a repository's, or imports an archive.
func (s *Server) imageCreate(w http.ResponseWriter, r *request) error {
	if r.text("fromSrc") != "" {
		return s.imageImport(w, r)
	}
	name, tag := r.text("fromImage"), r.text("tag")
	if name == "" {
		return invalid("fromImage is empty: name the image to pull")
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	p := &progress{w: w, entry: entryOf(r.Context())}
	if _, _, tagged := cutTag(name); tag == "" && !tagged && !strings.Contains(name, "@") {
		return p.end(s.pullAll(r, p, name, creds))
	}
	switch {
	case strings.HasPrefix(tag, "sha256:"), strings.HasPrefix(tag, "sha512:"):
		name += "@" + tag
	case tag != "":
		name += ":" + tag
	}
	fresh, err := s.pull(r, p, name, creds)
	if err != nil {
		return p.end(err)
	}
	p.message(jsonstream.Message{Status: pullStatus(name, fresh)})
	return nil
}

// pullAll pulls all tags of a repository, one after the other.
func (s *Server) pullAll(r *request, p *progress, name string, creds *engine.Credentials) error {
	tags, err := s.engine.Tags(r.Context(), name, creds)
	if err != nil {
		return err
	}
	any := false
	for _, tag := range tags {
		fresh, err := s.pull(r, p, name+":"+tag, creds)
		if err != nil {
			return err
		}
		any = any || fresh
	}
	p.message(jsonstream.Message{Status: pullStatus(name, any)})
	return nil
}

func pullStatus(name string, fresh bool) string {
	if fresh {
		return "Status: Downloaded newer image for " + name
	}
	return "Status: Image is up to date for " + name
}

// pull pulls one image and shows its progress; fresh says whether anything new came.
func (s *Server) pull(r *request, p *progress, name string, creds *engine.Credentials) (fresh bool, err error) {
	begin := sync.OnceFunc(func() {
		repo, tag, _ := cutTag(name)
		if at := strings.IndexByte(name, '@'); at >= 0 {
			repo, tag = name[:at], name[at+1:]
		}
		p.message(jsonstream.Message{Status: "Pulling from " + familiarPath(repo), ID: tag})
	})
	digest, fresh, err := s.engine.Pull(r.Context(), name, engine.PullOptions{Platform: r.text("platform"), Credentials: creds, Progress: func(e pull.Event) {
		begin()
		p.bytes(e.ID, e.Status, e.Current, e.Total)
	}})
	if err != nil {
		return false, err
	}
	begin()
	p.message(jsonstream.Message{Status: "Digest: " + digest})
	return fresh, nil
}

// familiarPath is a repository as Docker's progress names it: without its registry.
func familiarPath(repo string) string {
	host, rest, ok := strings.Cut(repo, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return rest
	}
	if !ok {
		return "library/" + repo
	}
	return repo
}
