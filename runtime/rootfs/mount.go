// Package rootfs builds a container's file tree by descriptor: no function of it takes a path into the tree as a
// host's string, and nothing it mounts is visible on the host.
package rootfs

// Mount is a file system by type, source and fstab options, as a caller hands it over for the container's root.
type Mount struct {
	Type    string
	Source  string
	Options []string
}
