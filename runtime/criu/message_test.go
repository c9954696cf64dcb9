package criu

import (
	"encoding/hex"
	"testing"

	"golang.org/x/sys/unix"
)

// Bytes as protoc encodes these messages by CRIU's own rpc.proto.
func TestRequestBytes(t *testing.T) {
	for name, tc := range map[string]struct {
		req  Request
		want string
	}{
		"dump": {
			Request{Type: Dump, Options: &Options{
				Pid: 4242, LeaveRunning: true, ExtUnixSk: true, TCPEstablished: true, ShellJob: true, FileLocks: true,
				LogLevel: 4, LogFile: "dump.log", PageServerAddress: "127.0.0.1", PageServerPort: 27277,
				NotifyScripts: true, Root: "/run/bundle/rootfs", ParentImage: "../parent", TrackMem: true,
				AutoDedup: true, WorkDir: true, LinkRemap: true, ExternalMounts: []Pair{{"/etc/hosts", "/etc/hosts"}},
				CgroupsMode: CgroupsIgnore, External: []string{"net[4026531840]:extRootNetNS"}, EmptyNS: unix.CLONE_NEWNET,
				FreezeCgroup: "/sys/fs/cgroup/freezer/c", TCPSkipInFlight: true, LazyPages: true, OrphanPTSMaster: true,
				ConfigFile: "/etc/criu/runc.conf",
			}},
			"080112d9010804109221180120012801380140014804520864756d702e6c6f675a0f0a093132372e302e302e31108dd50160016a" +
				"122f72756e2f62756e646c652f726f6f74667372092e2e2f706172656e747801800101880105900101ba01180a0a2f6574632f68" +
				"6f737473120a2f6574632f686f737473c00101900200aa021c6e65745b343032363533313834305d3a657874526f6f744e65744e" +
				"53b0028080808004e202182f7379732f66732f6367726f75702f667265657a65722f63f002018003019003019a03132f6574632f" +
				"637269752f72756e632e636f6e66",
		},
		"restore": {
			Request{Type: Restore, Options: &Options{
				EvasiveDevices: true, LogLevel: 4, LogFile: "restore.log", NotifyScripts: true, Root: "/r",
				ExternalMounts: []Pair{{"/data", "/srv/data"}}, CgroupRoots: []Pair{{"", "/c"}, {"memory", "/c"}},
				RestoreSibling: true, InheritFDs: []InheritFD{{"pipe:[7]", 0}, {"extRootNetNS", Descriptor(0)}},
				CgroupsMode: CgroupsDefault, JoinNamespaces: []Namespace{{"ipc", "/run/ns/ipc"}},
				EmptyNS: unix.CLONE_NEWNET, OrphanPTSMaster: true, LSMProfile: "apparmor:p", LSMMountContext: "ctx", NftablesLock: true,
			}},
			"080212a601080430014804520b726573746f72652e6c6f6760016a022f72ba01120a052f6461746112092f7372762f64617461c0" +
				"0101ca01060a0012022f63ca010c0a066d656d6f727912022f63d00101da010c0a08706970653a5b375d1000da01100a0c657874" +
				"526f6f744e65744e531006900206b0028080808004ba02120a03697063120b2f72756e2f6e732f697063900301aa030a61707061" +
				"726d6f723a70fa0303637478800402",
		},
		"feature check": {Request{Type: FeatureCheck, Features: Features{MemTrack: true, LazyPages: true}}, "08092a0408011001"},
	} {
		if got := hex.EncodeToString(tc.req.append(nil)); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tc.want)
		}
	}
	if got := hex.EncodeToString(appendNotified(nil, false)); got != "08061800" {
		t.Errorf("answer to a notification: %s", got)
	}
}

func TestResponseBytes(t *testing.T) {
	for wire, want := range map[string]Response{
		"080610012a110a0c706f73742d726573746f7265109321":               {Type: notify, Success: true, Script: "post-restore", Pid: 4243},
		"0802100038114a164572726f722028637269752f782e633a31293a206e6f": {Type: Restore, Errno: 17, Message: "Error (criu/x.c:1): no"},
		"08091001420408001001":                                         {Type: FeatureCheck, Success: true, Features: Features{LazyPages: true}},
		"080a10015214080410022001320c43524955544942494c495459":         {Type: Version, Success: true, Version: 40201},
		"080210012202084d":                                             {Type: Restore, Success: true, Pid: 77},
	} {
		raw, err := hex.DecodeString(wire)
		if err != nil {
			t.Fatal(err)
		}
		var got Response
		if err := got.unmarshal(raw); err != nil || got != want {
			t.Errorf("%s: %+v, %v", wire, got, err)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("\x08\x06\x10\x01\x2a\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { new(Response).unmarshal(b) })
}
