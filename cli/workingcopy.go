package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cale/cli/archive"
	"cale/client"
)

// workingCopyCommand is copy, and add, which also unpacks archives and fetches
// URLs.
func (a *App) workingCopyCommand(add bool) *cobra.Command {
	use := "copy [OPTIONS] CONTAINER SOURCE [SOURCE...] [DESTINATION]"
	if add {
		use = "add [OPTIONS] CONTAINER SOURCE [SOURCE...] [DESTINATION]"
	}
	c := &cobra.Command{Use: use, Args: atLeast(2)}
	f := c.Flags()
	chown := f.String("chown", "", "Set the user and group of what is copied (default root's)")
	chmod := f.String("chmod", "", "Set the permissions of what is copied (octal)")
	from := f.String("from", "", "Take the source from another working container")
	quiet := f.BoolP("quiet", "q", false, "Show nothing")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		api, err := a.client()
		if err != nil {
			return err
		}
		cfg, err := api.WorkingConfig(ctx, args[0])
		if err != nil {
			return err
		}
		w := &copying{a: a, api: api, container: args[0], add: add, mode: -1}
		if *chmod != "" {
			if w.mode, err = strconv.ParseInt(*chmod, 8, 32); err != nil || w.mode < 0 || w.mode > 0o7777 {
				return fmt.Errorf("invalid --chmod %q: it is octal", *chmod)
			}
		}
		if *chown != "" {
			if w.uid, w.gid, err = w.owner(ctx, *chown); err != nil {
				return err
			}
		}
		w.keepOwner = *from != "" && *chown == ""
		sources, dest := args[1:], ""
		if len(sources) > 1 {
			dest, sources = sources[len(sources)-1], sources[:len(sources)-1]
		}
		dir := path.Join("/", cfg.WorkingDir)
		full := path.Join(dir, dest)
		if path.IsAbs(dest) {
			full = path.Clean(dest)
		}
		if w.into, err = w.isDir(ctx, full); err != nil {
			return err
		}
		w.into = w.into || dest == "" || strings.HasSuffix(dest, "/") || len(sources) > 1
		w.dest = full
		again, err := a.setAside(ctx, api, args[0])
		if err != nil {
			return err
		}
		for _, s := range sources {
			if err == nil {
				err = w.source(ctx, s, *from)
			}
		}
		if err = errors.Join(err, again()); err != nil || *quiet {
			return err
		}
		d, err := api.ContainerInspect(ctx, args[0])
		if err == nil {
			fmt.Fprintln(a.Out, d.ID)
		}
		return err
	}
	return c
}

// copying is what goes into a working container, and where.
type copying struct {
	a         *App
	api       *client.Client
	container string
	add       bool
	dest      string
	into      bool // dest is a directory, there or not
	uid, gid  int
	keepOwner bool
	mode      int64 // -1: as it is
}

func (w *copying) isDir(ctx context.Context, at string) (bool, error) {
	st, err := w.api.ContainerStat(ctx, w.container, at)
	for n := 0; err == nil && fs.FileMode(st.Mode)&fs.ModeSymlink != 0 && n < 40; n++ {
		at = linkTarget(at, st.LinkTarget)
		st, err = w.api.ContainerStat(ctx, w.container, at)
	}
	if client.IsNotFound(err) {
		return false, nil
	}
	return err == nil && fs.FileMode(st.Mode).IsDir(), err
}

func (w *copying) source(ctx context.Context, s, from string) error {
	switch {
	case from != "":
		return w.fromContainer(ctx, from, s)
	case w.add && (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")):
		return w.fetch(ctx, s)
	}
	names, err := filepath.Glob(s)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s: no such file or directory", s)
	}
	if len(names) > 1 {
		w.into = true
	}
	for _, name := range names {
		if err := w.local(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// local takes a file, or what is in a folder.
func (w *copying) local(ctx context.Context, name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if w.add && st.Mode().IsRegular() {
		done, err := w.unpack(ctx, name)
		if done || err != nil {
			return err
		}
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	to := "."
	if !st.IsDir() {
		to = path.Base(w.place(filepath.Base(name)))
	}
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() { pw.CloseWithError(archive.Pack(pw, real, to)) }()
	return w.put(ctx, tar.NewReader(pr), st.IsDir())
}

// place is where a file of a name goes.
func (w *copying) place(base string) string {
	if w.into {
		return path.Join(w.dest, base)
	}
	return w.dest
}

// put sends an archive whose names are relative to dest or, for a single file
// that gets its name, to where that is.
func (w *copying) put(ctx context.Context, tr *tar.Reader, contents bool) error {
	dir := w.dest
	if !contents && !w.into {
		dir = path.Dir(w.dest)
	}
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() { pw.CloseWithError(w.rewrite(tr, pw, strings.TrimPrefix(dir, "/"), contents)) }()
	return w.api.ContainerCopyTo(ctx, w.container, "/", pr, false, false)
}

// rewrite gives an archive's entries their names, owner and permissions. The
// directory that they go to stays as it is, where it is there.
func (w *copying) rewrite(tr *tar.Reader, to io.Writer, dir string, contents bool) error {
	tw := tar.NewWriter(to)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if name == "." && contents {
			there, err := w.isDir(context.Background(), w.dest)
			if err != nil {
				return err
			}
			if there {
				continue
			}
		}
		h.Name = path.Join(dir, name)
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = path.Join(dir, path.Clean(h.Linkname))
		}
		if !w.keepOwner {
			h.Uid, h.Gid, h.Uname, h.Gname = w.uid, w.gid, "", ""
		}
		if w.mode >= 0 && h.Typeflag != tar.TypeSymlink {
			h.Mode = w.mode
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

// unpack adds an archive's content, if the file is an archive.
func (w *copying) unpack(ctx context.Context, name string) (done bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) || !archive.Is(head) {
		return false, err
	}
	// The directory that it goes to.
	var dir bytes.Buffer
	tw := tar.NewWriter(&dir)
	there, err := w.isDir(ctx, w.dest)
	if err == nil && !there {
		if err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(w.dest, "/") + "/", Mode: 0o755, Uid: w.uid, Gid: w.gid, ModTime: time.Now()}); err == nil {
			err = tw.Close()
		}
		if err == nil {
			err = w.api.ContainerCopyTo(ctx, w.container, "/", &dir, false, false)
		}
	}
	if err != nil {
		return true, err
	}
	return true, w.api.ContainerCopyTo(ctx, w.container, w.dest, r, false, false)
}

// maxFetched bounds what a URL gives, in bytes.
const maxFetched = 64 << 30

// fetch adds what a URL gives, as a file.
func (w *copying) fetch(ctx context.Context, from string) error {
	u, err := url.Parse(from)
	if err != nil {
		return err
	}
	base := path.Base(u.Path)
	if w.into && (base == "/" || base == ".") {
		return fmt.Errorf("%s has no file's name: name the destination", from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", from, r.Status)
	}
	// A tar says a file's size before its content.
	spool, err := os.CreateTemp("", "cale-add-")
	if err != nil {
		return err
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return err
	}
	size, err := io.Copy(spool, io.LimitReader(r.Body, maxFetched+1))
	if err != nil {
		return err
	}
	if size > maxFetched {
		return fmt.Errorf("%s gives more than %d bytes", from, int64(maxFetched))
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Base(w.place(base)), Mode: 0o600, Size: size}
	if at, err := http.ParseTime(r.Header.Get("Last-Modified")); err == nil {
		h.ModTime = at
	}
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() {
		tw := tar.NewWriter(pw)
		err := tw.WriteHeader(h)
		if err == nil {
			_, err = io.Copy(tw, io.NewSectionReader(spool, 0, size))
		}
		if err == nil {
			err = tw.Close()
		}
		pw.CloseWithError(err)
	}()
	return w.put(ctx, tar.NewReader(pr), false)
}

// fromContainer takes a file, or what is in a directory, of another container.
func (w *copying) fromContainer(ctx context.Context, container, name string) error {
	name = path.Join("/", name)
	st, err := w.api.ContainerStat(ctx, container, name)
	if err != nil {
		return err
	}
	isDir := fs.FileMode(st.Mode).IsDir()
	if isDir {
		name += "/." // its contents
	}
	body, st, err := w.api.ContainerCopyFrom(ctx, container, name)
	if err != nil {
		return err
	}
	defer body.Close()
	if isDir {
		return w.put(ctx, tar.NewReader(body), true)
	}
	to := path.Base(w.place(path.Base(name)))
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() { pw.CloseWithError(archive.Rename(pw, body, st.Name, to)) }()
	return w.put(ctx, tar.NewReader(pr), false)
}

// owner reads "USER[:GROUP]": numbers, or names that the container knows.
func (w *copying) owner(ctx context.Context, text string) (uid, gid int, err error) {
	user, group, both := strings.Cut(text, ":")
	uid, err = strconv.Atoi(user)
	if err != nil {
		fields, err := w.lookup(ctx, "/etc/passwd", user)
		if err != nil {
			return 0, 0, err
		}
		if uid, err = strconv.Atoi(fields[2]); err != nil {
			return 0, 0, err
		}
		if len(fields) > 3 {
			gid, _ = strconv.Atoi(fields[3])
		}
	} else if !both {
		gid = uid
	}
	if !both {
		return uid, gid, nil
	}
	if gid, err = strconv.Atoi(group); err != nil {
		fields, err := w.lookup(ctx, "/etc/group", group)
		if err != nil {
			return 0, 0, err
		}
		if gid, err = strconv.Atoi(fields[2]); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// lookup finds a name's line in a file of users or groups.
func (w *copying) lookup(ctx context.Context, file, name string) ([]string, error) {
	body, _, err := w.api.ContainerCopyFrom(ctx, w.container, file)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	tr := tar.NewReader(body)
	if _, err := tr.Next(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(io.LimitReader(tr, 1<<20))
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) > 2 && f[0] == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("the container has no %q in %s", name, file)
}
