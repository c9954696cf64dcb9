package linux

import "testing"

func TestOutside(t *testing.T) {
	const podman = "         0       1000          1\n         1     100000      65536\n"
	for _, test := range []struct {
		uidMap    string
		uid, want int
	}{
		{podman, 0, 1000}, {podman, 1, 100000}, {podman, 65536, 165535}, {podman, 65537, 65537},
		{"0 0 4294967295\n", 7, 7}, {"5 0 1\n", 5, 0}, {"", 3, 3},
	} {
		if got := outside(test.uidMap, test.uid); got != test.want {
			t.Errorf("%q: user %d is %d, not %d", test.uidMap, test.uid, got, test.want)
		}
	}
}
