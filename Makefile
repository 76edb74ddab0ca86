# The commands of this project. `make start` and `make test` are all that a newcomer needs; CONTRIBUTING.md explains
# the others.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/.tools/node_modules/.bin:$(PATH)

# Always the same selection of packages: another one resolves other features and builds the dependencies again.
native := --workspace --exclude dockframe-frontend
wasm := --target wasm32-unknown-unknown -p dockframe-frontend

# What the page is made of. It is built again only when one of these is newer.
page_sources := index.html Trunk.toml Cargo.toml Cargo.lock .cargo/config.toml \
	$(shell find frontend shared/src shared/Cargo.toml styles -name node_modules -prune -o -type f -print 2>/dev/null)

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: start
start: ## set up, build, run one job, keep serving (PORT=8000)
	@scripts/setup
	@$(MAKE) page
	@printf '==> Building dockframe (up to 6 minutes the first time)\n'
	@cargo build --release --quiet -p dockframe-cli
	@scripts/start

.PHONY: test
test: ## set up for tests, then every test
	@scripts/setup --test
	@$(MAKE) page
	@printf '==> Checking that the shared crate builds for the browser (seconds)\n'
	@cargo check --quiet --target wasm32-unknown-unknown -p dockframe-shared
	@printf '==> Building everything for the tests (2 to 4 minutes the first time)\n'
	@cargo build --quiet $(native) --all-targets
	@printf '==> Running the examples in the documentation (seconds)\n'
	@cargo test --quiet $(native) --doc
	@printf '==> Fuzzing every parser, 30 s each (2 minutes on two processors)\n'
	@SEED=1 scripts/fuzz --or-skip
	@printf '==> Running the tests of the page (a minute the first time)\n'
	@cargo nextest run -p dockframe-frontend
	@printf '==> Running all other tests, with real Docker, Redis and Chromium (a few minutes)\n'
	@cargo nextest run $(native)

.PHONY: check
check: check-fast ## format, clippy, rustdoc, licences and bans
	@scripts/setup --check
	@printf '==> rustdoc\n'
	@RUSTDOCFLAGS='-D warnings' cargo doc --quiet $(native) --no-deps --document-private-items
	@printf '==> cargo deny\n'
	@cargo deny --all-features check bans licenses sources

.PHONY: check-fast
check-fast: ## format and clippy alone, native and wasm
	@scripts/setup
	@printf '==> rustfmt\n'
	@cargo fmt --all --check
	@$(MAKE) page
	@printf '==> clippy, native\n'
	@cargo clippy --quiet $(native) --all-targets -- -D warnings
	@printf '==> clippy, wasm\n'
	@cargo clippy --quiet $(wasm) -- -D warnings

.PHONY: page
page: dist/index.html ## build the page into dist/
	@:

dist/index.html: $(page_sources)
	@printf '==> Building the page (2 minutes the first time, then seconds)\n'
	@# Trunk stops at NO_COLOR=1, which many terminals and all CI set: it wants true or false.
	@env -u NO_COLOR trunk --log warn build --release
	@touch $@

.PHONY: dev
dev: ## page with live reload on port 8080, relay and worker rebuilt on change on port 8000
	@scripts/setup
	@$(MAKE) page
	@scripts/dev

.PHONY: screenshots
screenshots: ## a picture of every state of the page, into docs/screenshots/
	@scripts/setup --test
	@$(MAKE) page
	@rm -rf docs/screenshots
	@cargo run --quiet -p dockframe-tests --bin dockframe-screenshots -- docs/screenshots

.PHONY: bench
bench: ## speed, latency and memory of the release build, from outside
	@scripts/setup --test
	@$(MAKE) page
	@scripts/bench

.PHONY: fuzz
fuzz: ## every parser against a fuzzer, SECONDS each (SECONDS=30)
	@SECONDS_EACH=$(or $(SECONDS),30) scripts/fuzz

.PHONY: nightly
nightly: ## a million simulated schedules (SCHEDULES=1000000)
	@CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 DEPLOYMENT_SCHEDULES=$(or $(SCHEDULES),1000000) \
		cargo test --release --quiet -p dockframe-relay --lib -- --ignored --nocapture --exact \
		queue::deployment::no_schedule_of_a_million_breaks_a_promise

.PHONY: fmt
fmt: ## format everything
	@cargo fmt --all

.PHONY: clean
clean: ## remove what was built; set-up stays
	@rm -rf target dist .dev tests/artifacts
