package runtime

import (
	"encoding/json"
	"testing"
	"time"

	"cale/runtime/resctrl"
)

// A state is written as package json would; only newlines, tabs and what HTML gives a meaning are spelled otherwise.
func TestStateIndented(t *testing.T) {
	for _, s := range []State{
		{},
		{Version: "1.3.0", ID: "a", Pid: 42, Status: Running, Bundle: "/a \"b\"\x01", Rootfs: "/r", Owner: "root",
			Created: time.Date(2024, 2, 29, 1, 2, 3, 45600, time.UTC), Annotations: map[string]string{"z": "é", "a": ""}},
	} {
		want, err := json.MarshalIndent(s, "", "  ")
		if got := s.Indented(); err != nil || string(got) != string(want) {
			t.Errorf("%s instead of %s, %v", got, want, err)
		}
	}
}

// What is written is what package json reads.
func TestRecordEncode(t *testing.T) {
	for _, want := range []record{
		{},
		{
			Format: recordVersion, ID: "a-b_c", Bundle: "/a \"b\"\\c\n\x01/é", Rootfs: "/r\u2028<>&", UID: 1000,
			Created: time.Date(2024, 2, 29, 1, 2, 3, 45600, time.UTC), CgroupPath: "x:y:z", NoCgroup: true,
			Unit: "u", Slice: "s", Resctrl: resctrl.Group{Dir: "/r", Made: true, Monitor: "/r/m"},
			Pid: 42, PidStart: 1<<64 - 1, BootID: "b",
			Restored: true, Stdio: [3]string{"pipe:[1]", "/dev/null", "/a\"b"},
		},
	} {
		var got, own record
		if err := json.Unmarshal(want.encode(), &got); err != nil || got != want {
			t.Errorf("%s: %v: got %+v", want.encode(), err, got)
		}
		if err := own.decode(want.encode()); err != nil || own != want {
			t.Errorf("%s: %v: decoded %+v", want.encode(), err, own)
		}
	}
	for _, bad := range []string{"", "{", `{"pid":"1"}`, `{"pid":1}x`, `{"created":"today"}`, `{"format":1e99}`, `{"stdio":[1]}`} {
		if err := new(record).decode([]byte(bad)); err == nil {
			t.Errorf("%s: decoded", bad)
		}
	}
	var later record
	if err := later.decode([]byte(`{"new":{"a":[null]}, "id":"x","unit":null,"stdio":["a","b","c","d"]}`)); err != nil || later.ID != "x" || later.Stdio[2] != "c" {
		t.Errorf("%+v, %v", later, err)
	}
	var got record
	if err := json.Unmarshal((&record{Bundle: "/\xff"}).encode(), &got); err != nil || got.Bundle != "/\ufffd" {
		t.Errorf("%q, %v", got.Bundle, err)
	}
}
