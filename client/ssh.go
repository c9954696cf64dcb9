package client

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"

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
		go cmd.Wait()
		return net.FileConn(ours)
	}, nil
}

// shellWord quotes a word for the shell of the other machine.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
