// Package ocispec holds the pieces an OCI runtime configuration of a container is put together from, with the
// defaults Docker's users know: capabilities, system call rules, masked paths, default mounts, devices, users.
package ocispec
