# Everything a developer runs; `make help` lists it. CI runs `make test` through .ci/run.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
SOAKTIME ?= 30m
BENCH    ?= .
TIMEOUT  ?= 20m
PREFIX   ?= /usr/local
MANDIR   ?= $(PREFIX)/share/man
UNITDIR  ?= $(PREFIX)/lib/systemd/system

# Packages whose tests take samples under the race detector: `make test` runs them once more without, in full.
FULL     ?= volume volume/collect

.PHONY: help build install demo deps test check race fuzz bench benchquick microbench soak clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 8

build: ## bin/skerry
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/skerry ./cmd/skerry

install: build ## the program, its manual pages, completion and systemd units, below DESTDIR and PREFIX
	install -D -m 755 bin/skerry $(DESTDIR)$(PREFIX)/bin/skerry
	bin/skerry man $(DESTDIR)$(MANDIR)/man1
	@mkdir -p $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/skerry completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/skerry
	bin/skerry completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_skerry
	bin/skerry completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/skerry.fish
	@mkdir -p $(DESTDIR)$(UNITDIR)
	for unit in $(notdir $(wildcard scripts/systemd/*.service scripts/systemd/*.socket)); do \
		sed 's|@bindir@|$(PREFIX)/bin|' "scripts/systemd/$$unit" > "$(DESTDIR)$(UNITDIR)/$$unit" || exit 1; done

demo: ## a volume's life from import to rollback, on this machine, in a minute
	@scripts/deps.sh demo
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

deps: ## install the Debian packages that the tests need
	@scripts/deps.sh

# Images for lazy imports must lie on a disk, which /tmp need not be.
test race check: export TMPDIR ?= /var/tmp

test: deps ## all tests, as CI runs them
	@scripts/vm/image.sh
	@scripts/uml/kernel.sh >/dev/null
	@status=0; \
	$(GO) test -race -timeout $(TIMEOUT) ./... || status=1; \
	$(GO) test -timeout $(TIMEOUT) $(addprefix ./,$(FULL)) || status=1; \
	if [ $$status = 0 ]; then echo "test: all passed"; else echo "test: FAILED"; fi; exit $$status

check: ## format, vet, staticcheck, layers, and the tests of what changed since HEAD
	@GO=$(GO) scripts/check.sh

race: ## all tests under the race detector
	$(GO) test -race -timeout 60m ./...

fuzz: ## every fuzz target for FUZZTIME
	@GO=$(GO) scripts/fuzz.sh $(FUZZTIME)

bench: ## skerry beside its peers: writes docs/benchmarks.md; a quarter of an hour, on an idle machine
	@scripts/deps.sh clients
	@$(MAKE) --no-print-directory build
	$(GO) run ./cmd/benchmark -out docs $(BENCHFLAGS)

benchquick: ## the same in about two minutes, rougher; only prints
	@scripts/deps.sh clients
	@$(MAKE) --no-print-directory build
	$(GO) run ./cmd/benchmark -quick $(BENCHFLAGS)

microbench: ## Go benchmarks that match BENCH
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

soak: ## the long forms of the tests, then every fuzz target for SOAKTIME
	SKERRY_SOAK=1 $(GO) test -count=1 -timeout 24h ./...
	@GO=$(GO) scripts/fuzz.sh $(SOAKTIME)

clean: ## remove what was built and cached
	rm -rf bin .cache
