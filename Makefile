# Everything a person or a machine does with this tree. `make help` lists it.

VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
PROGRAMS := cale caled cale-shim cale-oci cale-build cale-verify
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# Where cale-oci begins, before Go does: runtime/linux/restart.
START := $(if $(filter amd64,$(shell go env GOARCH)),-E _cale_start)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 0

.PHONY: build
build: ## the programs, in bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -ldflags 'cale/cmd/cale-oci=$(LDFLAGS) $(START)' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))
	go build -trimpath -ldflags '$(LDFLAGS)' -tags cri,nri_no_wasm -o bin/cale-cri ./cmd/caled

.PHONY: hello
hello: build ## the main job, with no network: a registry serves an image, cale pulls and runs it
	test/hello/run

.PHONY: test
test: ## all that CI runs (as root; installs what it needs from Debian)
	test/run

.PHONY: lint
lint: ## gofmt, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt -w these:"; echo "$$out"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: ## every fuzz target for a minute each
	test/fuzz 60s

.PHONY: bench
bench: build ## the whole stacks side by side (needs podman, docker.io, containerd; PEERS=folder has newer ones in their place)
	go run ./bench/run $(NEWEST)
	go run ./bench/port $(NEWEST)
	go run ./bench/memory $(NEWEST)
	go run ./bench/load $(NEWEST)

.PHONY: bench-newest
PEERS ?=
NEWEST = $(if $(PEERS),-newest $(PEERS))
bench-newest: ## the same with the newest engines, from the module proxy, kept in PEERS (/var/tmp/cale-peers)
	bench/peers/newest $(or $(PEERS),/var/tmp/cale-peers)
	$(MAKE) bench PEERS=$(or $(PEERS),/var/tmp/cale-peers)

.PHONY: bench-runtime
bench-runtime: build ## the low-level runtimes and the kernel's floor side by side (needs crun, runc, a C compiler)
	go run ./bench/runtime

.PHONY: bench-cri
bench-cri: build ## what a kubelet asks of a runtime, side by side (needs containernetworking-plugins, containerd 2 and runc)
	go run ./bench/cri

.PHONY: bench-image
bench-image: build ## pulls and pushes side by side (needs podman, docker.io, containerd, skopeo)
	go run ./bench/image

.PHONY: bench-build
bench-build: build ## builds side by side (needs podman, docker.io; buildkitd, buildctl and runc in PATH)
	go run ./bench/build

.PHONY: conformance
conformance: build ## the field's own suites, from the module proxy (long)
	test/conformance/runtime-tools/run
	test/conformance/runc/run
	test/conformance/distribution/run
	test/conformance/cri/run

.PHONY: conformance-runc
conformance-runc: build ## runc's own integration tests against our runtime, as root and as a user without rights (15 minutes)
	test/conformance/runc/run
	test/conformance/runc/run --rootless

.PHONY: conformance-cri
conformance-cri: build ## Kubernetes' own suite for container runtimes against cale-cri (three minutes)
	test/conformance/cri/run

.PHONY: conformance-registry
conformance-registry: build ## the distribution specification's own program against cale registry
	test/conformance/distribution/run

.PHONY: conformance-moby conformance-moby-cli conformance-docker-cli conformance-compose
conformance-moby: build ## moby's API tests against our socket (ten minutes)
	test/conformance/docker/run moby

conformance-moby-cli: build ## moby's tests of the command line against our socket (twenty minutes)
	test/conformance/docker/run moby-cli

conformance-docker-cli: build ## the tests of docker's own client against our socket (five minutes)
	test/conformance/docker/run docker-cli

conformance-compose: build ## Compose's own tests against our socket (half an hour)
	test/conformance/docker/run compose

.PHONY: conformance-buildkit
conformance-buildkit: build ## BuildKit's own tests against our builder (ten minutes)
	test/conformance/buildkit/run dockerfile
	test/conformance/buildkit/run client

.PHONY: kill
kill: build ## the engine killed at a hundred random moments of pulls, pushes, loads and collections (four minutes)
	CALE_BIN=$(CURDIR)/bin CALE_KILLS=100 go test -count=1 -timeout 20m -run TestKilledAtWork ./test/e2e

.PHONY: interop
interop: build ## images to and from skopeo, umoci, buildah, podman, docker and containerd, compared to the last attribute
	test/setup busybox-static skopeo umoci buildah podman docker.io containerd docker-registry
	CALE_BIN=$(CURDIR)/bin CALE_INTEROP=1 go test -count=1 ./test/interop

.PHONY: test-vm
test-vm: ## the runtime's, network's and shim's tests on Debian's own kernel in QEMU (needs qemu-system-x86, cpio; long)
	test/vm/run

.PHONY: conformance-containerd
conformance-containerd: build ## our runtime and shim under the newest containerd
	test/conformance/containerd

.PHONY: install
install: build ## the programs into $(PREFIX)/bin and the systemd units
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(addprefix bin/,$(PROGRAMS) cale-cri)
	ln -sf cale-shim $(DESTDIR)$(PREFIX)/bin/containerd-shim-cale-v2
	install -D -m 0644 -t $(DESTDIR)/etc/systemd/system dist/caled.service dist/caled.socket
PREFIX ?= /usr/local

.PHONY: clean
clean: ## what was built
	rm -rf bin

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 24
