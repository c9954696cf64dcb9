package cri

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// Clients that vanish, whatever they were at, leave nothing behind here (CVE-2022-23471: resizes; CVE-2025-64329:
// attaching) once the commands that they ran have ended, and what they attached to goes on.
func testVanishedClients(t *testing.T, n *node) {
	p := n.podConfig("vanished")
	pod := n.pod(p)
	config := n.config("c", "sh", "-c", "while read l; do echo got $l; done; sleep 1000")
	config.Stdin, config.Tty = true, true
	c := n.run(pod, p, config)
	urls := map[string]func() string{
		"exec": func() string {
			r, err := n.Exec(n.ctx(), &runtimeapi.ExecRequest{ContainerId: c, Cmd: []string{"sleep", "1"}, Stdin: true, Stdout: true, Tty: true})
			if err != nil {
				t.Fatal(err)
			}
			return r.Url
		},
		"attach": func() string {
			r, err := n.Attach(n.ctx(), &runtimeapi.AttachRequest{ContainerId: c, Stdin: true, Stdout: true, Tty: true})
			if err != nil {
				t.Fatal(err)
			}
			return r.Url
		},
		"forward": func() string {
			r, err := n.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{4711}})
			if err != nil {
				t.Fatal(err)
			}
			return r.Url
		},
	}
	clients := map[string]func(t *testing.T, at string){"websocket": vanishWebSocket, "nothing": vanishEarly}
	if !testing.Short() { // for these Kubernetes' library waits 30 seconds
		clients["SPDY"] = vanishSPDY
	}
	for _, url := range urls { // what the first of each kind makes for all
		vanishWebSocket(t, url())
	}
	time.Sleep(time.Second)
	before := n.goroutines()
	for range 10 {
		for _, url := range urls {
			for _, client := range clients {
				client(t, url())
			}
		}
	}
	stack.Until(t, "nothing of them stays", func() bool { return n.goroutines() <= before+4 })
	if st := n.status(c); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %v", st.State)
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Error(err)
	}
}

// vanishWebSocket resizes a terminal some times and is gone.
func vanishWebSocket(t *testing.T, at string) {
	t.Helper()
	protocol := "v5.channel.k8s.io"
	if strings.Contains(at, "/portforward/") {
		protocol = "v4.channel.k8s.io"
	}
	config, err := websocket.NewConfig("ws"+strings.TrimPrefix(at, "http"), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{protocol}
	ws, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for i := range 5 {
		_ = websocket.Message.Send(ws, append([]byte{4}, fmt.Sprintf(`{"Width":%d,"Height":%d}`, 80+i, 24)...))
	}
}

// vanishSPDY asks for another protocol, is given it, and is gone before it opens a stream.
func vanishSPDY(t *testing.T, at string) {
	t.Helper()
	protocol := "v4.channel.k8s.io"
	if strings.Contains(at, "/portforward/") {
		protocol = "portforward.k8s.io"
	}
	upgrade(t, at, "Upgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: "+protocol+"\r\n", http.StatusSwitchingProtocols)
}

// vanishEarly asks for something that there is not.
func vanishEarly(t *testing.T, at string) {
	t.Helper()
	upgrade(t, at, "Upgrade: nothing\r\nConnection: Upgrade\r\n", http.StatusBadRequest)
}

func upgrade(t *testing.T, at, headers string, want int) {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(stack.Patience))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", u.Path, u.Host, headers)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || r.StatusCode != want {
		t.Errorf("%v, %v, want %d", r, err, want)
	}
}
