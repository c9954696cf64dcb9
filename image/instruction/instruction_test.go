package instruction

import (
	"encoding/json"
	"strings"
	"testing"

	"cale/image"
)

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name, changes, want string // want: JSON of the fields that are set, or ~ and a part of the error
	}{
		{"shell form", `CMD echo hi`, `{"Cmd":["/bin/sh","-c","echo hi"]}`},
		{"exec form", `cmd ["echo", "hi"]`, `{"Cmd":["echo","hi"]}`},
		{"a bracket is no array", `CMD [ -e x ]`, `{"Cmd":["/bin/sh","-c","[ -e x ]"]}`},
		{"entrypoint ends cmd", "ENTRYPOINT [\"x\"]", `{"Entrypoint":["x"]}`},
		{"entrypoint keeps its cmd", "CMD [\"a\"]\nENTRYPOINT [\"x\"]", `{"Entrypoint":["x"],"Cmd":["a"]}`},
		{"env", `ENV A=1 B="two words" C=a\ b D='$A'`, `{"Env":["A=1","B=two words","C=a b","D=$A"]}`},
		{"env in the old form", `ENV A  some  text`, `{"Env":["A=some  text"]}`},
		{"env again", "ENV A=1\nENV A=${A}2 B=$A C=${NO:-d}${A:+e}$", `{"Env":["A=12","B=1","C=de$"]}`},
		{"label", `LABEL a.b=c "d e"="f \"g\""`, `{"Labels":{"a.b":"c","d e":"f \"g\""}}`},
		{"expose", `EXPOSE 80 53/udp 8000-8001`, `{"ExposedPorts":["53/udp","80/tcp","8000/tcp","8001/tcp"]}`},
		{"user and workdir", "ENV U=joe\nUSER $U:1\nWORKDIR /a\nWORKDIR b/../c", `{"User":"joe:1","WorkingDir":"/a/c","Env":["U=joe"]}`},
		{"volume", "VOLUME /a /b\nVOLUME [\"/c d\"]", `{"Volumes":["/a","/b","/c d"]}`},
		{"onbuild", `ONBUILD RUN make`, `{"OnBuild":["RUN make"]}`},
		{"stopsignal", `STOPSIGNAL SIGUSR1`, `{"StopSignal":"SIGUSR1"}`},
		{"healthcheck", `HEALTHCHECK --interval=5s --retries=2 CMD true || false`, `{"Healthcheck":{"Test":["CMD-SHELL","true || false"],"Interval":5000000000,"Retries":2}}`},
		{"no healthcheck", `HEALTHCHECK NONE`, `{"Healthcheck":{"Test":["NONE"]}}`},
		{"continued, with a comment", "ENV A=1 \\\n# no\n  B=2", `{"Env":["A=1","B=2"]}`},
		{"not a change", `RUN x`, `~RUN is not a valid change command`},
		{"no arguments", `CMD`, `~CMD requires arguments`},
		{"env without value", `ENV A`, `~ENV: A has no value`},
		{"open quote", `ENV A="x`, `~not closed`},
		{"open brace", `ENV A=${x`, `~not closed`},
		{"bad port", `EXPOSE 0`, `~invalid containerPort: 0`},
		{"bad protocol", `EXPOSE 1/x`, `~invalid proto: x`},
		{"onbuild onbuild", `ONBUILD ONBUILD RUN x`, `~isn't allowed`},
		{"short interval", `HEALTHCHECK --interval=1us CMD x`, `~less than 1ms`},
		{"bad healthcheck", `HEALTHCHECK SHELL x`, `~unknown type "SHELL"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var run image.RunConfig
			err := Apply(&run, []string{c.changes})
			if part, ok := strings.CutPrefix(c.want, "~"); ok {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%v, want %s", err, part)
				}
				return
			}
			var want image.RunConfig
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			got, _ := json.Marshal(run)
			exp, _ := json.Marshal(want)
			if err != nil || string(got) != string(exp) {
				t.Errorf("%s, %v\nwant %s", got, err, exp)
			}
		})
	}
}
