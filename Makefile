# What there is to do: `make help`. Runs on Debian 12 or later with Rust, git and make; what else is missing is installed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

INSTALL := deploy/install.sh
KAFKA := .cache/kafka

.PHONY: help demo demo-kafka up test test-kafka test-deploy check crash crash-kafka chaos backlog receipts bench-audience fuzz \
	bench bench-short bench-pipeline bench-campaign bench-stages bench-growth bench-peers bench-instructions bench-document

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: ## the main job on real input: events in over gRPC, texts out at a gateway simulator, receipts back (PostgreSQL bus)
	$(INSTALL) build postgresql
	cargo build --release --locked -p tamtam
	target/release/tamtam demo

demo-kafka: ## the same on a real Apache Kafka
	$(INSTALL) build postgresql kafka
	cargo build --release --locked -p tamtam
	deploy/kafka/with-node.sh 'target/release/tamtam demo --kafka $$KAFKA'

up: ## tamtam with the gateway simulator, until Ctrl-C
	$(INSTALL) build postgresql
	cargo build --release --locked -p tamtam
	target/release/tamtam up --simulator

test: ## all tests on the embedded default, with a private PostgreSQL and a headless browser
	$(INSTALL) build postgresql browser node
	cargo build --locked -p tamtam --features failpoints
	cargo test --locked --workspace --no-fail-fast

test-kafka: ## the integration tests on a real Apache Kafka
	$(INSTALL) build postgresql browser node kafka analysts
	cargo build --locked -p tamtam --features failpoints
	TAMTAM_TEST_BUS=kafka cargo test --locked -p tests --no-fail-fast

test-deploy: ## what `kubectl kustomize` makes of deploy/k8s, against the typed Kubernetes API and the binary
	$(INSTALL) build postgresql kubectl
	cargo build --locked -p tamtam --features failpoints
	TAMTAM_TEST_KUBECTL=$$($(INSTALL) --where kubectl) cargo test --locked -p tests -- deploy::

RUNS ?= 20

crash: ## kill every role in the middle of 5,000 messages, RUNS times (PostgreSQL bus)
	$(INSTALL) build postgresql
	cargo build --locked -p tamtam --features failpoints
	TAMTAM_CRASH_RUNS=$(RUNS) cargo test --locked -p tests -- --nocapture crash::every_role

crash-kafka: ## the same on a real Apache Kafka
	$(INSTALL) build postgresql kafka
	cargo build --locked -p tamtam --features failpoints
	TAMTAM_CRASH_RUNS=$(RUNS) TAMTAM_TEST_BUS=kafka cargo test --locked -p tests -- --nocapture crash::every_role

SEED ?= 1
MESSAGES ?= 200
BUS ?= postgres
WORLDS ?= 1

chaos: ## RUNS runs with faults from seed SEED on, of MESSAGES messages each, WORLDS at once; BUS=kafka on a real Apache Kafka; RELEASE=true with the release binary; TABLE=FILE keeps the result
	$(INSTALL) build postgresql $(if $(filter kafka,$(BUS)),kafka)
	cargo build --locked -p tamtam $(if $(RELEASE),--release,--features failpoints)
	TAMTAM_TEST_BUS=$(BUS) TAMTAM_CHAOS_SEED=$(SEED) TAMTAM_CHAOS_RUNS=$(RUNS) TAMTAM_CHAOS_MESSAGES=$(MESSAGES) \
	  TAMTAM_CHAOS_WORLDS=$(WORLDS) $(if $(RELEASE),TAMTAM_TEST_BINARY=$(abspath target/release/tamtam)) \
	  $(if $(TABLE),TAMTAM_CHAOS_TABLE=$(abspath $(TABLE))) cargo test --locked -p tests -- --nocapture chaos::nothing_is_lost

BACKLOG ?= 1000000

backlog: ## a dispatcher before BACKLOG messages: its memory, and how long transactional messages take past them
	$(INSTALL) build postgresql $(if $(filter kafka,$(BUS)),kafka)
	cargo build --locked -p tamtam --features failpoints
	TAMTAM_TEST_BUS=$(BUS) TAMTAM_LOAD_BACKLOG=$(BACKLOG) cargo test --locked -p tests -- --nocapture dispatcher_load::

receipts: ## 50,000 messages whose receipts come late, twice, in hex, early, in parts, or never
	$(INSTALL) build postgresql
	TAMTAM_RECEIPTS_MESSAGES=50000 cargo test --locked -p tests -- --nocapture receipts::every_message

bench-audience: ## audiences counted on a million contacts and ten million events, import and expansion: into docs/benchmarks.md
	$(INSTALL) build postgresql venv
	cargo build --release --locked -p tamtam
	deploy/bench/audience.sh

FUZZ_SECONDS ?= 30

FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

fuzz: ## every decoder of ours on bytes that nobody should send, each FUZZ_SECONDS long (nightly Rust)
	$(INSTALL) build fuzz
	@# The versions that tamtam is built with. No address sanitizer: unsafe code is forbidden here, and it takes long.
	cp Cargo.lock fuzz/Cargo.lock
	cd fuzz && cargo +nightly fuzz build --sanitizer none
	cd fuzz && for target in $(FUZZ_TARGETS); do \
	  mkdir -p corpus/$$target; \
	  cargo +nightly fuzz run --sanitizer none $$target corpus/$$target seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096; \
	done

check: ## format, clippy, rustdoc, licences and advisories
	$(INSTALL) build deny
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@# Private items are documented too, so links to them lead somewhere.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items
	deploy/deny.sh

# --- how fast it is: docs/benchmarks.md. BENCH_SECONDS (60) and BENCH_RUNS (3) make it shorter; BENCH_SHORT=true proves
# --- that a bench works, in seconds.
BENCH_PROFILE := release
BENCH = target/$(BENCH_PROFILE)/bench
BENCH_AS_release := --release
# As the tests build it, so that little is compiled again.
BENCH_AS_debug := --features tamtam/failpoints
# Timed, a node runs as Kafka's own start script runs it. The tests' starts quicker, and its code is compiled for that.
KAFKA_AS_release := KAFKA_JAVA_OPTIONS="-Xms1g -Xmx1g -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
	-XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent"
WITH_KAFKA = $(KAFKA_AS_$(BENCH_PROFILE)) deploy/kafka/with-node.sh

.PHONY: bench-build
bench-build:
	$(INSTALL) build postgresql kafka
	cargo build --locked -p tamtam -p bench $(BENCH_AS_$(BENCH_PROFILE))

bench: bench-pipeline bench-campaign bench-stages bench-growth ## all benches: the whole pipeline, a campaign, each stage alone, growth (two hours)

bench-short: ## prove that the benches work, without timing anything, on a debug build
	BENCH_SHORT=true $(MAKE) bench BENCH_PROFILE=debug

bench-pipeline: bench-build ## the whole pipeline on Kafka, on the PostgreSQL bus, and in one process (`tamtam up`)
	$(WITH_KAFKA) '$(BENCH) pipeline'
	$(BENCH) pipeline
	$(BENCH) pipeline --up

bench-campaign: bench-build ## a campaign of 200,000 over SMPP and over HTTP, killed in the middle, and its first message of a million contacts
	$(BENCH) campaign
	$(BENCH) campaign --http
	$(BENCH) campaign-killed
	$(BENCH) campaign-first

bench-stages: bench-build ## each stage alone, against its raw limit
	$(WITH_KAFKA) '$(BENCH) stages'
	$(BENCH) stages

bench-growth: bench-build ## what a message costs against contacts, history, triggers, partitions, dispatchers, backlog (an hour)
	$(BENCH) growth

bench-peers: bench-build ## Kannel, Jasmin, hand-written senders and, of a checkout LISTMONK_SRC, listmonk; writes target/bench/peers.json
	$(INSTALL) peers
	$(WITH_KAFKA) '$(BENCH) peers'

.PHONY: bench-examples bench-renders bench-callbacks bench-triggers
bench-examples: bench-build
	cargo build --release --locked -p tamtam -p bench -p renderer -p segmenter -p receipt-collector --bins --examples

bench-renders: bench-examples ## texts judged, rendered and priced a second on one core
	target/release/examples/renders

bench-callbacks: bench-examples ## callbacks a second that are kept and answered on Kafka, and how long a short link's redirect takes
	$(WITH_KAFKA) 'target/release/examples/callbacks 200000 $$KAFKA'

bench-triggers: bench-examples ## what an event costs the segmenter with 10, 1,000 and 10,000 triggers
	target/release/examples/triggers

bench-instructions: ## instructions of the pure hot functions, against the committed counts
	$(INSTALL) build valgrind
	cargo build --release --locked -p hot
	target/release/hot check

bench-document: bench-build ## put what was measured into docs/benchmarks.md
	$(BENCH) document
