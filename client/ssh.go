package client

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sshDialer connects to an engine on another machine by ssh(1), whose other end is cale there, as Docker's client does
// with docker: ssh://[USER@]HOST[:PORT][/path/of/the/socket]. What ssh has to say goes to stderr.
func sshDialer(host string) (func(context.Context) (net.Conn, error), error) {
	u, err := url.Parse(host)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("invalid host %q: must be ssh://[USER@]HOST[:PORT][/SOCKET]", host)
	}
	if _, set := u.User.Password(); set {
		return nil, fmt.Errorf("invalid host %q: a password does not belong there", u.Redacted())
	}
	args := []string{"-T", "-o", "ConnectTimeout=30"}
	if name := u.User.Username(); name != "" {
		args = append(args, "-l", name)
	}
	if port := u.Port(); port != "" {
		args = append(args, "-p", port)
	}
	args = append(args, "--", u.Hostname(), "cale")
	if path := strings.TrimRight(u.Path, "/"); path != "" {
		args = append(args, "--host", shellWord("unix://"+path))
	}
	args = append(args, "system", "dial-stdio")
	return func(ctx context.Context) (net.Conn, error) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", host, err)
		}
		ours, theirs := os.NewFile(uintptr(pair[0]), "ssh"), os.NewFile(uintptr(pair[1]), "ssh")
		defer ours.Close()
		defer theirs.Close()
		// Not of ctx: the connection outlives the request, and ends ssh when it is closed.
		cmd := exec.Command("ssh", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", host, err)
		}
		c := &sshConn{ended: make(chan struct{})}
		if c.Conn, err = net.FileConn(ours); err != nil {
			theirs.Close()
			cmd.Wait()
			return nil, fmt.Errorf("connect to %s: %w", host, err)
		}
		go func() {
			defer close(c.ended)
			c.failed = cmd.Wait()
		}()
		return c, nil
	}, nil
}

// sshConn says how ssh ended, if it failed, to who reads or writes.
type sshConn struct {
	net.Conn
	ended  chan struct{}
	failed error // of the process; to be read once ended is closed
}

// Read implements io.Reader.
func (c *sshConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 || err == nil {
		return n, err
	}
	return n, c.why(err)
}

// Write implements io.Writer.
func (c *sshConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		err = c.why(err)
	}
	return n, err
}

// why is how ssh ended, if that is what an error came of.
func (c *sshConn) why(err error) error {
	select {
	case <-c.ended:
		if c.failed != nil {
			return fmt.Errorf("ssh: %w", c.failed)
		}
	case <-time.After(time.Second): // it was not ssh that ended
	}
	return err
}

// CloseWrite ends what the other side reads.
func (c *sshConn) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }

// shellWord quotes a word for the shell of the other machine.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
