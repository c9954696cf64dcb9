package task

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"
)

type message interface {
	Append([]byte) []byte
	Unmarshal([]byte) error
}

// Every message comes back as it was, and as containerd's own code encodes it
// where golden bytes are given.
func TestMessages(t *testing.T) {
	at := time.Unix(1700000000, 123456789).UTC()
	for _, c := range []struct {
		in   message
		want string
	}{
		{&ProcessRequest{ID: "c", ExecID: "e"}, "0a0163" + "120165"},
		{&KillRequest{ID: "c", Signal: 9, All: true}, "0a0163" + "1809" + "2001"},
		{&ResizeRequest{ID: "c", ExecID: "e", Width: 300, Height: 24}, "0a0163" + "120165" + "18ac02" + "2018"},
		{&CloseIORequest{ID: "c", Stdin: true}, "0a0163" + "1801"},
		{&ShutdownRequest{ID: "c", Now: true}, "0a0163" + "1001"},
		{&PidResponse{Pid: 300}, "08ac02"},
		{&WaitResponse{ExitStatus: 137, ExitedAt: at}, "088901" + "120b" + "0880e2cfaa06" + "10959aef3a"},
		{&DeleteResponse{Pid: 1, ExitStatus: 2, ExitedAt: at}, "0801" + "1002" + "1a0b" + "0880e2cfaa06" + "10959aef3a"},
		{&PidsResponse{Pids: []uint32{1, 300}}, "0a020801" + "0a0308ac02"},
		{&ConnectResponse{ShimPid: 1, TaskPid: 2, Version: "v2"}, "0801" + "1002" + "1a027632"},
		{&UpdateRequest{ID: "c", Resources: Any{URL: "t", Value: []byte("{}")}}, "0a0163" + "1207" + "0a0174" + "12027b7d"},
		{&StatsRequest{ID: "c", Native: true}, ""},
		{&CheckpointRequest{ID: "c", Path: "/p", Options: Any{URL: "t", Value: []byte{8, 1}}}, "0a0163" + "12022f70" + "1a070a017412020801"},
		{&CheckpointOptions{Exit: true, OpenTCP: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true,
			CgroupsMode: "soft", ImagePath: "/i", WorkPath: "/w"}, "08011001180120012801" + "3a04736f6674" + "42022f69" + "4a022f77"},
		{&RunRequest{ID: "c", RunID: "r", Stdout: "o", Stderr: "e", Spec: []byte("{}"), Timeout: 3}, "0a0163" + "120172" + "1a016f" + "220165" + "2a027b7d" + "3003"},
		{&RunResponse{ExitStatus: 137, Killed: true}, "088901" + "1001"},
		{&StatsResponse{Stats: Any{URL: TypeStats, Value: []byte{1, 2}}}, ""},
		{&StateResponse{ID: "c", Bundle: "/b", Pid: 5, Status: StatusPaused, Stdin: "i", Stdout: "o", Stderr: "e",
			Terminal: true, ExitStatus: 3, ExitedAt: at, ExecID: "x"}, ""},
		{&CreateRequest{ID: "c", Bundle: "/b", Terminal: true, Stdin: "i", Stdout: "o", Stderr: "e", Checkpoint: "k",
			Rootfs:  []Mount{{Type: "overlay", Source: "overlay", Options: []string{"a=b", "", "ro"}}, {Type: "bind", Target: "/x"}},
			Options: Any{URL: TypeOptions, Value: []byte{8, 1}}}, ""},
		{&ExecRequest{ID: "c", ExecID: "e", Terminal: true, Stdin: "i", Stdout: "o", Stderr: "e",
			Spec: Any{URL: TypeProcess, Value: []byte("{}")}}, ""},
		{&RuncOptions{NoPivotRoot: true, NoNewKeyring: true, BinaryName: "crun", Root: "/r", SystemdCgroup: true},
			"0801" + "1001" + "3204" + hex.EncodeToString([]byte("crun")) + "3a022f72" + "4801"},
	} {
		b := c.in.Append(nil)
		if c.want != "" && hex.EncodeToString(b) != c.want {
			t.Errorf("%T: %x, want %s", c.in, b, c.want)
		}
		out := reflect.New(reflect.TypeOf(c.in).Elem()).Interface().(message)
		if err := out.Unmarshal(b); err != nil || !reflect.DeepEqual(c.in, out) {
			t.Errorf("%T: %+v came back as %+v, %v", c.in, c.in, out, err)
		}
		// Cut short, it fails or is another valid message; it never panics.
		for i := range b {
			reflect.New(reflect.TypeOf(c.in).Elem()).Interface().(message).Unmarshal(b[:i])
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add((&CreateRequest{ID: "c", Rootfs: []Mount{{Type: "x"}}, Options: Any{URL: "u"}}).Append(nil))
	f.Add((&StateResponse{ID: "c", ExitedAt: time.Unix(1, 2)}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []message{
			new(CreateRequest), new(ExecRequest), new(ProcessRequest), new(KillRequest), new(ResizeRequest),
			new(CloseIORequest), new(UpdateRequest), new(ShutdownRequest), new(StatsRequest), new(StateResponse),
			new(DeleteResponse), new(PidsResponse), new(RuncOptions),
		} {
			m.Unmarshal(b)
		}
	})
}
