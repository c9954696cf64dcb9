package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestMetrics: a scrape is well formed and has the figures of what runs.
func TestMetrics(t *testing.T) {
	s := stack.New(t)
	port := stack.FreePort(t)
	s.KillEngine()
	caled := s.Command(t.Context(), filepath.Join(stack.Programs(t), "caled"), "--root", s.Root, "--run", s.Run, "--metrics-addr", fmt.Sprintf("127.0.0.1:%d", port))
	if err := caled.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		caled.Process.Kill()
		caled.Wait()
	}()
	scrape := func() (string, error) {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	stack.Until(t, "the engine", func() bool { _, err := scrape(); return err == nil })
	s.Cale("run", "-d", "--name", "figured", s.Busybox(), "sh", "-c", "while true; do :; done").OK(t)
	defer s.Cale("rm", "-f", "figured")
	has := func(text, pattern string) bool { return regexp.MustCompile("(?m)^" + pattern + "$").MatchString(text) }
	stack.Until(t, "processor time", func() bool {
		text, _ := scrape()
		return has(text, `container_cpu_usage_seconds_total\{id="[0-9a-f]{64}",name="figured",image="[^"]*busybox"\} [0-9.]*[1-9][0-9.e+-]*`)
	})
	text, err := scrape()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		`engine_daemon_container_states_containers\{state="running"\} 1`, `container_running\{.*name="figured".*\} 1`,
		`container_network_receive_bytes_total\{.*interface="eth0"\} \d.*`, `container_processes\{.*\} [1-9]\d*`,
		`container_memory_working_set_bytes\{.*\} [1-9].*`,
	} {
		if !has(text, p) {
			t.Errorf("no %s in\n%s", p, text)
		}
	}
	told := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			if told[name] {
				t.Errorf("family %s comes twice", name)
			}
			told[name] = true
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		m := regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$`).FindStringSubmatch(line)
		if m == nil || !told[m[1]] {
			t.Errorf("line %q", line)
		}
	}
}
