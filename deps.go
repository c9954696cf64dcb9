//go:build tools

package cale

import (
	_ "github.com/docker/go-units"
	_ "github.com/google/nftables"
	_ "github.com/google/nftables/expr"
	_ "github.com/klauspost/compress/gzip"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/moby/moby/api/types/container"
	_ "github.com/moby/moby/api/types/events"
	_ "github.com/moby/moby/api/types/image"
	_ "github.com/moby/moby/api/types/jsonstream"
	_ "github.com/moby/moby/api/types/network"
	_ "github.com/moby/moby/api/types/registry"
	_ "github.com/moby/moby/api/types/system"
	_ "github.com/moby/moby/api/types/volume"
	_ "github.com/moby/profiles/seccomp"
	_ "github.com/opencontainers/runtime-spec/specs-go"
	_ "github.com/pelletier/go-toml/v2"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/pflag"
	_ "github.com/vishvananda/netlink"
	_ "go.etcd.io/bbolt"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "google.golang.org/protobuf/encoding/protowire"
)
