# Heddle. `make help` lists the targets; `make demo` and `make test` install
# what they lack (Debian packages, as root) and need only Go besides.

SHELL        := /bin/bash
TOOLS        := $(CURDIR)/.tools
LINT_VERSION := v2.15.0
VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO           ?= go
LDFLAGS      := -s -w -X main.version=$(VERSION)
PREFIX       ?= /usr/local

.PHONY: help deps build install demo check unit race e2e fuzz test bench pgo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building, testing and measuring need
	@bench/install/debian.sh $(LINT_VERSION) $(TOOLS)

build: ## build swd, swctl and swbench into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./ctl/swd ./ctl/swctl ./bench/swbench

install: build ## install swd, swctl and the systemd unit below PREFIX (/usr/local)
	install -D -m 0755 bin/swd $(DESTDIR)$(PREFIX)/sbin/swd
	install -D -m 0755 bin/swctl $(DESTDIR)$(PREFIX)/bin/swctl
	install -D -m 0644 ctl/swd/swd.service $(DESTDIR)/etc/systemd/system/swd.service
	install -D -m 0644 ctl/swd/heddle.sysusers $(DESTDIR)/usr/lib/sysusers.d/heddle.conf

demo: deps build ## containers on one switch, out and in by NAT, and across two hosts by the mesh
	@bench/demo/demo.sh

# default.pgo would have these compile all that swd imports a second time, to no end.
check unit race: export GOFLAGS := $(strip $(GOFLAGS) -pgo=off)

check: deps ## gofmt, vet and golangci-lint
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) vet ./...
	$(TOOLS)/golangci-lint run ./...
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

unit: deps ## every package's tests: rules, models, allocation gates, ports through real kernels
	$(GO) test -count=1 -timeout 10m $$($(GO) list ./... | grep -v /bench/e2e)

race: deps ## the same under the race detector
	$(GO) test -count=1 -timeout 15m -race $$($(GO) list ./... | grep -v /bench/)

e2e: deps ## namespaces, real kernels and programs, end to end
	$(GO) test -count=1 -timeout 15m ./bench/e2e/...

fuzz: ## fuzz every invariant for FUZZTIME (10s) each
	@bench/install/fuzz.sh $(or $(FUZZTIME),10s)

test: check unit race e2e ## everything above but demo and fuzz

# Each of the three is measured, whatever the others refused; the exit code tells.
bench: deps build ## measure side by side: table, JSON and plot under bench/results/
	@failed=; \
	bin/swbench $(BENCHFLAGS) || failed="$$failed swbench"; \
	$(GO) run ./bench/contention --out bench/results/contention || failed="$$failed contention"; \
	$(GO) test -count=1 -timeout 30m -run '^TestScale$$' ./tunnel/mesh -args \
		-mesh.sizes=10,50,100,200 -mesh.out=$(CURDIR)/bench/results/mesh || failed="$$failed mesh"; \
	[ -z "$$failed" ] || { echo "not all was measured, see above:$$failed"; exit 1; }

# Profiles name the program by its path: naming it again makes that relative.
PGO_SUITES := switch:MemPorts|Push nat:MemPorts tunnel:MemPorts|SuperFrame

pgo: ## profile the hot loop anew for the compiler: ctl/swd/default.pgo
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	for suite in $(foreach s,$(PGO_SUITES),'$(s)'); do \
		pkg=$${suite%%:*}; \
		$(GO) test -trimpath -pgo=off -c -o "$$tmp/$$pkg.test" "./$$pkg"; \
		(cd "$$pkg" && "$$tmp/$$pkg.test" -test.run '^$$' -test.bench "^Benchmark($${suite#*:})" -test.benchtime 2s -test.cpuprofile "$$tmp/$$pkg.cpu"); \
		(cd "$$tmp" && $(GO) tool pprof -proto -output "$$pkg.pb" "$$pkg.test" "$$pkg.cpu"); \
	done; \
	(cd "$$tmp" && $(GO) tool pprof -proto -output default.pgo *.pb); \
	if $(GO) tool pprof -raw "$$tmp/default.pgo" | grep -F -e "$(CURDIR)" -e "$$tmp"; then echo "the profile has paths of this machine"; exit 1; fi; \
	install -m 0644 "$$tmp/default.pgo" ctl/swd/default.pgo

clean: ## remove what was built
	rm -rf bin
