package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"cale/cli/archive"
	"cale/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

type copyOptions struct{ archive, follow, quiet bool }

func (a *App) cpCommand() *cobra.Command {
	c := &cobra.Command{Use: "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tcale cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", Args: exactly(2)}
	c.Long = `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`
	f := c.Flags()
	var o copyOptions
	f.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		from, src := splitContainer(args[0])
		to, dst := splitContainer(args[1])
		if (from != "" || to != "") && (src == "" || dst == "") {
			return errors.New("the path to copy from or to is empty")
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		switch {
		case from != "" && to != "":
			return errors.New("copying between containers is not supported")
		case from != "":
			return a.copyFrom(cmd.Context(), api, from, src, dst, o)
		case to != "":
			return a.copyTo(cmd.Context(), api, src, to, dst, o)
		}
		return errors.New("must specify at least one container source")
	}
	return c
}

// splitContainer takes CONTAINER:PATH apart; a path of this machine that has a
// colon begins with / or a dot.
func splitContainer(s string) (container, p string) {
	if s == "-" || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") {
		return "", s
	}
	container, p, ok := strings.Cut(s, ":")
	if !ok {
		return "", s
	}
	return container, p
}

// place is where something is copied to: a folder and the name in it.
type place struct{ dir, name string }

// destination applies cp's rules. exists and isDir describe dst.
func destination(src, srcBase string, srcIsDir bool, dst string, exists, isDir bool) (place, error) {
	contents := srcIsDir && (strings.HasSuffix(src, "/.") || src == ".")
	trailing := strings.HasSuffix(dst, "/") || strings.HasSuffix(dst, "/.")
	clean := path.Clean(dst)
	switch {
	case exists && isDir && contents:
		return place{clean, "."}, nil
	case exists && isDir:
		return place{clean, srcBase}, nil
	case exists && trailing:
		return place{}, fmt.Errorf("%s: not a directory", dst)
	case exists && srcIsDir:
		return place{}, fmt.Errorf("cannot copy directory to file %s", dst)
	case !exists && trailing && !srcIsDir:
		return place{}, fmt.Errorf("%s: no such directory", dst)
	}
	return place{path.Dir(clean), path.Base(clean)}, nil
}

func (a *App) copyFrom(ctx context.Context, api *client.Client, container, src, dst string, o copyOptions) error {
	if o.follow {
		st, err := api.ContainerStat(ctx, container, src)
		if err == nil && fs.FileMode(st.Mode)&fs.ModeSymlink != 0 {
			src = linkTarget(src, st.LinkTarget)
		}
	}
	r, st, err := api.ContainerCopyFrom(ctx, container, src)
	if err != nil {
		return err
	}
	defer r.Close()
	counter := &countReader{r: r}
	if dst == "-" {
		if _, ok := terminal(a.Out); ok {
			return errors.New("cowardly refusing to write a tar archive to a terminal")
		}
		_, err := io.Copy(a.Out, counter)
		return err
	}
	if abs, err := filepath.EvalSymlinks(dst); err == nil && !strings.HasSuffix(dst, "/.") {
		if strings.HasSuffix(dst, "/") {
			abs += "/"
		}
		dst = abs
	}
	local, err := os.Stat(dst)
	exists := err == nil
	srcBase := path.Base(path.Clean("/" + src))
	contents := strings.HasSuffix(src, "/.") || src == "."
	from := st.Name
	if contents {
		from = "."
	}
	if srcBase == "/" { // the whole container
		srcBase, from = ".", "."
	}
	if exists && local.Mode()&(fs.ModeDevice|fs.ModeIrregular) != 0 {
		return notOverDevice(dst)
	}
	p, err := destination(src, srcBase, fs.FileMode(st.Mode).IsDir(), dst, exists, exists && local.IsDir())
	if err != nil {
		return err
	}
	if err := archive.Unpack(p.dir, counter, archive.Options{From: from, To: p.name, Owner: o.archive}); err != nil {
		return err
	}
	a.copied(o, counter.n, dst)
	return nil
}

func (a *App) copyTo(ctx context.Context, api *client.Client, src, container, dst string, o copyOptions) error {
	st, err := api.ContainerStat(ctx, container, dst)
	for n := 0; err == nil && fs.FileMode(st.Mode)&fs.ModeSymlink != 0 && n < 40; n++ {
		target := linkTarget(dst, st.LinkTarget)
		if strings.HasSuffix(dst, "/") {
			target += "/"
		}
		dst = target
		st, err = api.ContainerStat(ctx, container, dst)
	}
	if err != nil && (!client.IsNotFound(err) || strings.Contains(err.Error(), "No such container")) {
		return err
	}
	exists := err == nil
	isDir := exists && fs.FileMode(st.Mode).IsDir()
	if exists && fs.FileMode(st.Mode)&(fs.ModeDevice|fs.ModeIrregular) != 0 {
		return notOverDevice(container + ":" + dst) // it would not be written to, but a file would take its place
	}
	if src == "-" {
		if !isDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", container, dst)
		}
		counter := &countReader{r: a.In}
		if err := api.ContainerCopyTo(ctx, container, dst, counter, true, o.archive); err != nil {
			return err
		}
		a.copied(o, counter.n, container+":"+dst)
		return nil
	}
	stat := os.Lstat
	if o.follow || strings.HasSuffix(src, "/") || strings.HasSuffix(src, "/.") {
		stat = os.Stat
	}
	info, err := stat(src)
	if err != nil {
		return err
	}
	if strings.HasSuffix(src, "/") && !info.IsDir() {
		return fmt.Errorf("%s: not a directory", src)
	}
	real := src
	if stat2, err := os.Lstat(src); err == nil && stat2.Mode()&fs.ModeSymlink != 0 && info.Mode()&fs.ModeSymlink == 0 {
		if real, err = filepath.EvalSymlinks(src); err != nil {
			return err
		}
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return err
	}
	p, err := destination(src, filepath.Base(abs), info.IsDir(), dst, exists, isDir)
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(archive.Pack(pw, filepath.Clean(real), p.name)) }()
	defer pr.Close()
	counter := &countReader{r: pr}
	if err := api.ContainerCopyTo(ctx, container, p.dir, counter, true, o.archive); err != nil {
		return err
	}
	a.copied(o, counter.n, container+":"+dst)
	return nil
}

// linkTarget is where a link in a container leads.
func linkTarget(link, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(strings.TrimSuffix(link, "/")), target)
}

// copied says what was copied, at a terminal.
func (a *App) copied(o copyOptions, n int64, where string) {
	if _, ok := terminal(a.Err); !ok || o.quiet {
		return
	}
	fmt.Fprintf(a.Err, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), where)
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func notOverDevice(name string) error {
	return fmt.Errorf("destination %q must be a directory or a regular file: got a device", name)
}
