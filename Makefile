# SPDX-License-Identifier: Apache-2.0
#
# build, run and test need Go and make alone; the other targets name what they
# need if it is missing. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

GO ?= go
BIN := bin/twscope
CACHE := $(CURDIR)/.cache

# A clone without git, or without tags, still builds; it only cannot say what.
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

# The committed BPF objects come from Debian 12's compiler. Another one makes
# other objects, so generate-check insists on its version.
CLANG_VERSION := 14
CLANG ?= $(or $(shell command -v clang-$(CLANG_VERSION)),clang)
LLVM_STRIP ?= $(or $(shell command -v llvm-strip-$(CLANG_VERSION)),llvm-strip)
CLANG_FORMAT ?= $(or $(shell command -v clang-format-$(CLANG_VERSION)),clang-format)
C_FILES = $(wildcard bpf/*.c bpf/*.h headers/*.h)
SHELL_FILES = .ci/run $(shell find testdata deploy -name '*.sh' 2>/dev/null)

GOLANGCI_VERSION := 2.15.0
GOLANGCI := $(CACHE)/bin/golangci-lint-$(GOLANGCI_VERSION)

# What test, fuzz, bench-go and lint work on. ./... leaves testdata out, where
# the tools that make and use the stored kernels are.
PKGS ?= ./... $(addprefix ./,$(sort $(dir $(wildcard testdata/*/*.go testdata/*/*/*.go))))
# The self check of the test machine runs in that machine only.
TEST_PKGS = $(filter-out %/selfcheck/,$(PKGS))
TESTFLAGS ?= -timeout=10m
FUZZTIME ?= 30s
BENCH ?= .

##@ Build

.PHONY: build
build: ## Build bin/twscope, a static binary (the default)
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/twscope

.PHONY: man
man: build ## Write the manual pages to bin/man; for completions see twscope completion --help
	@$(BIN) man $(dir $(BIN))man

.PHONY: run
run: build ## Build, then watch this host until Ctrl-C: events on stdout
	@if [ "$$(id -u)" -eq 0 ]; then exec $(BIN) run --out -; else exec sudo $(BIN) run --out -; fi

.PHONY: demo
demo: build ## Build, then make happen and explain the two situations that tell the story best
	@demo='$(BIN) lab run exhaust-no-timestamps nat-port-reuse-two-hosts'; \
	if [ "$$(id -u)" -eq 0 ]; then exec $$demo; else exec sudo $$demo; fi

.PHONY: clean
clean: ## Remove what was built, not what was downloaded (.cache)
	rm -rf bin

##@ Test

# The race detector needs a C compiler and its headers.
RACE = $(shell echo '#include <stdlib.h>' | $$($(GO) env CC) -E - >/dev/null 2>&1 && \
	[ "$$(CGO_ENABLED=1 $(GO) env CGO_ENABLED)" = 1 ] && echo -race)

.PHONY: test
test: ## Run every test that this machine can run, and say which it cannot
	@race='$(RACE)'; as=(); \
	if [ -z "$$race" ]; then echo 'test: no C compiler, so without -race' >&2; else export CGO_ENABLED=1; fi; \
	if [ "$$(id -u)" -ne 0 ]; then \
		if sudo -n true 2>/dev/null; then as=(-exec 'sudo -n --preserve-env=CI'); \
		else echo 'test: not root, and no passwordless sudo: the privileged tests are skipped, see SKIP below' >&2; fi; \
	fi; \
	$(GO) run ./internal/testutil/runtests -count=1 $$race "$${as[@]}" $(TESTFLAGS) $(TEST_PKGS)

# What differs from kernel to kernel: BTF, counters and sysctls, the verifier,
# and all observations on all rungs. The verdicts that follow are the same on
# every rung, so those run on the best one, and the lab also on one kernel with
# fentry alone. The rest of the tests runs here only: emulated time is dear.
VM_SESSION ?= ^Test(PortsRunOut|CloseOrders|PAWS|SYN|Silence|Reuse|Ends|Census|OwnerOf(Connect|Accept|ReusePort)|ExhaustionIs|BudgetOf|Remedies)
KERNELS ?=
VM_JOBS ?= 1
LAB_KERNEL ?= 6.12
# An emulated CPU stalls for whole seconds, and one stall fails a test that is
# right; what is wrong fails a second time too.
VM = CI=true testdata/vm/run.sh -t 25m -T 8m -again
VM_KERNELS = $(VM) -j $(VM_JOBS) $(addprefix -k ,$(KERNELS))

.PHONY: test-kernels
test-kernels: test-rungs test-verdicts test-lab ## Run the privileged tests on other kernels in QEMU, KERNELS="6.1 6.12"

.PHONY: test-rungs
test-rungs:
	$(VM_KERNELS) ./internal/kernel ./internal/bpf './internal/session:-test.run=$(VM_SESSION)'

.PHONY: test-verdicts
test-verdicts:
	$(VM_KERNELS) -rungs free -logs .cache/vm-logs/verdicts \
		'./internal/session:-test.run=^TestNATVerdicts$$'

.PHONY: test-lab
test-lab:
	$(VM) -k $(LAB_KERNEL) -rungs free -logs .cache/vm-logs/lab \
		'./internal/lab/scenario:-test.run=^TestScenarios$$'

COST := internal/bpf/testdata/cost.txt

.PHONY: cost
cost: ## Note what the BPF programs cost on this kernel and on those of the last test-kernels
	@$(GO) test -count=1 -v -run '^TestVerifier$$' ./internal/bpf > $(CACHE)/cost.log || true
	@{ cat $(COST); sed -n 's/.* cost: //p' $(CACHE)/cost.log $$(find $(CACHE)/vm-logs -type f); } | \
		awk '/^#/ { print; next } { row[$$1 " " $$2] = $$0 } END { for (r in row) print row[r] | "sort -V" }' > $(COST).new
	@mv $(COST).new $(COST)

# Up to Go 1.26 a busy machine may see "context deadline exceeded" where the
# time is up (go.dev/issue/75804). What fails for an input keeps that input.
FUZZ_ENDED = { grep -q 'context deadline exceeded' $(CACHE)/fuzz.log && \
	! grep -qi 'failing input\|panic\|_test\.go:' $(CACHE)/fuzz.log; }

.PHONY: fuzz
fuzz: ## Fuzz every Fuzz function in turn, FUZZTIME=30s each
	@$(GO) test -list '^Fuzz' $(PKGS) | \
		awk '/^Fuzz/ { f[n++] = $$1 } /^ok/ { while (n) print $$2, f[--n] }' >$(CACHE)/fuzz.list
	@test -s $(CACHE)/fuzz.list || { echo 'fuzz: no Fuzz functions in $(PKGS)' >&2; exit 1; }
	@while read -r pkg name; do \
		echo "== $$name $$pkg"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null 2>&1 | \
			tee $(CACHE)/fuzz.log || $(FUZZ_ENDED) || exit 1; \
	done <$(CACHE)/fuzz.list
fuzz: | $(CACHE)

.PHONY: bench-go
bench-go: ## Run the Go benchmarks, BENCH=regexp
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKGS)

BENCH_RESULT ?= testdata/bench/results/$(shell uname -r)
BENCH_RUN = bin/bench -dir .cache

.PHONY: bench
bench: bench-build bench-peers ## Compare what observers cost, as root, 10 minutes; keeps BENCH_RESULT
	$(BENCH_RUN) -out $(BENCH_RESULT)

.PHONY: bench-short
bench-short: bench-build bench-peers ## The same in 1.5 minutes, with fewer rounds
	$(BENCH_RUN) -rounds 2 -nets loopback

.PHONY: bench-growth
bench-growth: bench-build ## How twscope's cost grows, as root, 10 minutes; keeps BENCH_RESULT-growth
	$(BENCH_RUN) -mode growth -out $(BENCH_RESULT)-growth

.PHONY: bench-sustained
bench-sustained: bench-build ## 60 s at full rate, reconciled; keeps BENCH_RESULT-sustained
	$(BENCH_RUN) -mode sustained -out $(BENCH_RESULT)-sustained

.PHONY: bench-build
bench-build: build | $(CACHE)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./testdata/bench

# A peer that is not there is a line of the table, not an error.
BENCH_PEERS := libbpf-tools bpftrace bpfcc-tools
.PHONY: bench-peers
bench-peers:
	@dpkg-query -W $(BENCH_PEERS) >/dev/null 2>&1 || { \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $(BENCH_PEERS) >/dev/null; \
	} || echo 'bench-peers: cannot install $(BENCH_PEERS): what is not there is not compared' >&2

##@ Generated files

# Where bpf2go puts what it makes.
GENERATED := internal/bpf internal/lab/recycle

.PHONY: generate
generate: need-clang ## Rebuild the BPF objects and their Go types (clang 14, llvm, libbpf-dev)
	BPF2GO_CC=$(CLANG) BPF2GO_STRIP=$(LLVM_STRIP) $(GO) generate $(addprefix ./,$(GENERATED))

.PHONY: btf
btf: ## Rebuild the stored kernel BTFs from Debian's kernel packages
	$(GO) run ./testdata/btf/gen

# In a copy, so that it tells the truth whatever git thinks of the work tree,
# and proves that the objects do not depend on where they are built.
.PHONY: generate-check
generate-check: need-clang ## Rebuild them in a copy and fail if they differ from those here
	@echo "clang:      $$($(CLANG) --version | head -n 1)"
	@echo "llvm-strip: $$($(LLVM_STRIP) --version | grep -m 1 -i version | xargs)"
	@echo "libbpf-dev: $$(pkg-config --modversion libbpf 2>/dev/null || echo unknown)"
	@echo "bpf2go:     $$($(GO) list -m -f '{{.Version}}' github.com/cilium/ebpf)"
	@$(CLANG) --version | grep -q 'version $(CLANG_VERSION)\.' || { \
		echo 'generate-check: the objects are built with clang $(CLANG_VERSION); set CLANG to one' >&2; exit 1; }
	@copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	cp -R go.mod go.sum bpf headers internal "$$copy"; \
	for dir in $(GENERATED); do find "$$copy/$$dir" -name '*_bpfe[lb].*' -delete; done; \
	$(MAKE) --no-print-directory -C "$$copy" -f '$(CURDIR)/Makefile' generate; \
	for dir in $(GENERATED); do \
		diff -r "$$dir" "$$copy/$$dir" || { \
			echo "generate-check: $$dir is not what bpf/ compiles to: run \`make generate\` and commit the result" >&2; \
			exit 1; }; \
	done
	@echo 'generate-check: no difference'

.PHONY: need-clang
need-clang:
	@for tool in $(CLANG) $(LLVM_STRIP); do \
		command -v "$$tool" >/dev/null || { echo "$$tool not found: apt install clang llvm libbpf-dev" >&2; exit 1; }; \
	done
	@test -e /usr/include/bpf/bpf_helpers.h || { echo 'no bpf/bpf_helpers.h: apt install libbpf-dev' >&2; exit 1; }

##@ Style

.PHONY: lint
lint: $(GOLANGCI) ## Check the Go, C and shell sources (clang-format, shellcheck)
	$(GOLANGCI) config verify
	$(GOLANGCI) run $(PKGS)
	$(GOLANGCI) fmt --diff
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)
	shellcheck $(SHELL_FILES)

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the Go and C sources
	$(GOLANGCI) fmt
	$(CLANG_FORMAT) -i $(C_FILES)

# Its own module graph, so that the linter's dependencies are none of ours.
$(GOLANGCI): | $(CACHE)
	@echo 'building golangci-lint $(GOLANGCI_VERSION), once'
	@GOBIN=$(CACHE)/bin GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(GOLANGCI_VERSION)
	@mv $(CACHE)/bin/golangci-lint $@

$(CACHE):
	@mkdir -p $@

##@ Help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
