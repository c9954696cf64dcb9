// Package instruction applies Dockerfile instructions to an image's
// configuration: those that change nothing else, as docker commit --change and
// docker import --change take them.
package instruction

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"cale/image"
)

// Apply applies instructions in their order. A text may hold several lines,
// with comments, and lines that a backslash at the end continues. On an error
// run may be changed in part.
func Apply(run *image.RunConfig, texts []string) error {
	s := state{run: run}
	for _, line := range lines(texts) {
		word, rest, _ := strings.Cut(line, " ")
		if i := strings.IndexByte(word, '\t'); i >= 0 {
			word, rest = line[:i], line[i+1:]
		}
		rest = strings.TrimSpace(rest)
		do := instructions[strings.ToUpper(word)]
		if do == nil {
			return fmt.Errorf("%s is not a valid change command", word)
		}
		if rest == "" {
			return fmt.Errorf("%s requires arguments", strings.ToUpper(word))
		}
		if err := do(&s, rest); err != nil {
			return fmt.Errorf("%s: %w", strings.ToUpper(word), err)
		}
	}
	return nil
}

// lines are the logical lines of texts.
func lines(texts []string) []string {
	var out []string
	open := false // the last line goes on
	for _, l := range strings.Split(strings.Join(texts, "\n"), "\n") {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		body, more := strings.CutSuffix(l, `\`)
		if open {
			out[len(out)-1] += body
		} else {
			out = append(out, body)
		}
		open = more
	}
	return out
}

// state is what an instruction works on.
type state struct {
	run    *image.RunConfig
	cmdSet bool // CMD came before ENTRYPOINT
}

var instructions = map[string]func(*state, string) error{
	"CMD": (*state).cmd, "ENTRYPOINT": (*state).entrypoint, "ENV": (*state).env, "EXPOSE": (*state).expose,
	"HEALTHCHECK": (*state).healthcheck, "LABEL": (*state).label, "ONBUILD": (*state).onbuild,
	"STOPSIGNAL": (*state).stopsignal, "USER": (*state).user, "VOLUME": (*state).volume, "WORKDIR": (*state).workdir,
}

// command reads the exec form, a JSON array of strings, or the shell form.
func (s *state) command(text string) []string {
	var list []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil && list != nil {
		return list
	}
	shell := s.run.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), text)
}

func (s *state) cmd(text string) error {
	s.run.Cmd, s.run.ArgsEscaped, s.cmdSet = s.command(text), false, true
	return nil
}

// entrypoint also takes away a command that was meant for another one.
func (s *state) entrypoint(text string) error {
	s.run.Entrypoint = s.command(text)
	if !s.cmdSet {
		s.run.Cmd = nil
	}
	return nil
}

func (s *state) env(text string) error {
	return s.pairs(text, func(k, v string) {
		s.run.Env = slices.Clone(s.run.Env)
		i := slices.IndexFunc(s.run.Env, func(e string) bool { return strings.HasPrefix(e, k+"=") })
		if i < 0 {
			s.run.Env = append(s.run.Env, "")
			i = len(s.run.Env) - 1
		}
		s.run.Env[i] = k + "=" + v
	})
}

func (s *state) label(text string) error {
	labels := map[string]string{}
	for k, v := range s.run.Labels {
		labels[k] = v
	}
	err := s.pairs(text, func(k, v string) { labels[k] = v })
	s.run.Labels = labels
	return err
}

// pairs reads key=value words, or the old form of one key and the rest of the
// line as its value. Values see the environment as it is before the line.
func (s *state) pairs(text string, set func(k, v string)) error {
	words, err := split(text)
	if err != nil {
		return err
	}
	type pair struct{ k, v string }
	var all []pair
	if !strings.Contains(words[0], "=") {
		k, v, ok := strings.Cut(text, " ")
		if !ok {
			return fmt.Errorf("%s has no value: it takes name=value", k)
		}
		all = append(all, pair{k, strings.TrimSpace(v)})
	} else {
		for _, w := range words {
			k, v, ok := strings.Cut(w, "=")
			if !ok {
				return fmt.Errorf("cannot make name=value of %q", w)
			}
			all = append(all, pair{k, v})
		}
	}
	for i := range all {
		for _, part := range []*string{&all[i].k, &all[i].v} {
			if *part, err = s.expand(*part); err != nil {
				return err
			}
		}
		if all[i].k == "" {
			return fmt.Errorf("a name is empty")
		}
	}
	for _, p := range all {
		set(p.k, p.v)
	}
	return nil
}

func (s *state) expose(text string) error {
	words, err := split(text)
	if err != nil {
		return err
	}
	ports := slices.Clone(s.run.ExposedPorts)
	for _, w := range words {
		if w, err = s.expand(w); err != nil {
			return err
		}
		list, err := portRange(w)
		if err != nil {
			return err
		}
		ports = append(ports, list...)
	}
	slices.Sort(ports)
	s.run.ExposedPorts = slices.Compact(ports)
	return nil
}

// portRange gives the ports of "80", "80/udp" or "8000-8010/tcp".
func portRange(text string) ([]string, error) {
	number, protocol, ok := strings.Cut(strings.ToLower(text), "/")
	if !ok {
		protocol = "tcp"
	}
	low, high, isRange := strings.Cut(number, "-")
	if !isRange {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return nil, fmt.Errorf("invalid containerPort: %s", text)
	}
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, fmt.Errorf("invalid proto: %s", protocol)
	}
	var out []string
	for n := first; n <= last; n++ {
		out = append(out, strconv.FormatUint(n, 10)+"/"+protocol)
	}
	return out, nil
}

func (s *state) onbuild(text string) error {
	word, _, _ := strings.Cut(text, " ")
	switch word = strings.ToUpper(word); word {
	case "ONBUILD":
		return fmt.Errorf("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", word)
	}
	s.run.OnBuild = append(slices.Clone(s.run.OnBuild), text)
	return nil
}

func (s *state) stopsignal(text string) (err error) {
	s.run.StopSignal, err = s.expand(text)
	return err
}

func (s *state) user(text string) (err error) {
	s.run.User, err = s.expand(text)
	return err
}

func (s *state) workdir(text string) error {
	dir, err := s.expand(text)
	if err != nil {
		return err
	}
	if dir == "" {
		return fmt.Errorf("the path is empty")
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", s.run.WorkingDir, dir)
	}
	s.run.WorkingDir = path.Clean(dir)
	return nil
}

func (s *state) volume(text string) error {
	var words []string
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &words) != nil {
		var err error
		if words, err = split(text); err != nil {
			return err
		}
	}
	volumes := slices.Clone(s.run.Volumes)
	for _, w := range words {
		w, err := s.expand(w)
		if err != nil {
			return err
		}
		if w = strings.TrimSpace(w); w == "" {
			return fmt.Errorf("a path is empty")
		}
		if !slices.Contains(volumes, w) {
			volumes = append(volumes, w)
		}
	}
	slices.Sort(volumes)
	s.run.Volumes = volumes
	return nil
}

func (s *state) healthcheck(text string) error {
	h := &image.Healthcheck{}
	for strings.HasPrefix(text, "--") {
		flag, rest, _ := strings.Cut(text, " ")
		name, value, _ := strings.Cut(flag[2:], "=")
		var err error
		switch name {
		case "interval":
			h.Interval, err = duration(value)
		case "timeout":
			h.Timeout, err = duration(value)
		case "start-period":
			h.StartPeriod, err = duration(value)
		case "start-interval":
			h.StartInterval, err = duration(value)
		case "retries":
			h.Retries, err = strconv.Atoi(value)
			if err == nil && h.Retries < 0 {
				err = fmt.Errorf("it is negative")
			}
		default:
			return fmt.Errorf("unknown flag: %s", name)
		}
		if err != nil {
			return fmt.Errorf("--%s=%s: %w", name, value, err)
		}
		text = strings.TrimSpace(rest)
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(word) {
	case "NONE":
		if rest != "" {
			return fmt.Errorf("NONE takes no arguments")
		}
		h = &image.Healthcheck{Test: []string{"NONE"}}
	case "CMD":
		if rest == "" {
			return fmt.Errorf("missing command after CMD")
		}
		var list []string
		if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &list) == nil {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return fmt.Errorf("unknown type %q: it is CMD or NONE", word)
	}
	s.run.Healthcheck = h
	return nil
}

// duration reads a duration as Docker bounds it: none, or a millisecond and
// more.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && (d < 0 || d > 0 && d < time.Millisecond) {
		err = fmt.Errorf("it is less than 1ms")
	}
	return d, err
}
