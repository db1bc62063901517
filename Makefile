# make demo    build, then run this repository's own pipeline on local instances
# make test    set up what the tests need, then run all of them
# make build   release binaries, the agent inside of mayfly, in dist/
# make aws     the provider for EC2 Auto Scaling groups, in dist/: AWS's SDK takes minutes and 8 GB
# make sim     seeds of the simulated scheduler on all cores, SECONDS=600; fails with a replay command
# make bench   the figures of docs/performance.md
# make chaos   SEED=7 or SEEDS=1..50: kill everything at random, and prove that no job notices
# make lint    formatting and clippy

CARGO ?= cargo
HOST_TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
GO_ARCH := $(subst x86_64,amd64,$(subst aarch64,arm64,$(firstword $(subst -, ,$(HOST_TARGET)))))
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
REFERENCE := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)

export MAYFLY_GIT_REVISION := $(REVISION)
export MAYFLY_GIT_REF := $(REFERENCE)

.PHONY: demo test quick-test chaos setup build agent docker aws static sim bench lint clean

demo:
	$(CARGO) build --locked -p manager -p agent -p fleeting-plugin-local
	./target/debug/mayfly exec

# What speaks to a Docker daemon by the client finds that of the tests.
test: export DOCKER_HOST ?= unix://$(CURDIR)/target/docker/docker.sock
test: setup static
	$(CARGO) build --locked --workspace --bins
	./tests/run

# What every commit must pass: no processes, no network, seconds.
quick-test:
	$(CARGO) test --locked -p scheduler -p job -p mayfly-plugin
	$(CARGO) test --locked -p mayfly-tests --test tidy

SEED ?= 1
SEEDS ?= $(SEED)

# Results go into tests/chaos/results; MAYFLY_CHAOS_KEEP=1 keeps logs and tells each injection.
chaos:
	$(CARGO) build --locked --workspace --bins
	MAYFLY_CHAOS_SEEDS=$(SEEDS) $(CARGO) test --locked -p mayfly-tests --test chaos

setup:
	./tests/setup

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# A static agent runs on every Linux of its architecture. Its flags would make proc-macros
# static too, hence the explicit target and a folder of its own.
agent:
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --profile agent -p agent \
		--target $(HOST_TARGET) --target-dir target/agent
	mkdir -p dist/agents
	cp target/agent/$(HOST_TARGET)/agent/mayfly-agent dist/agents/mayfly-agent-$(GO_ARCH)

# The docker plugin runs in its containers, too: on every image only if it is static.
docker:
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --release -p fleeting-plugin-docker \
		--target $(HOST_TARGET) --target-dir target/agent
	mkdir -p dist
	cp target/agent/$(HOST_TARGET)/release/fleeting-plugin-docker dist/

# The provider for EC2 Auto Scaling groups, by itself: AWS's SDK takes minutes and 8 GB to build.
aws:
	$(CARGO) build --locked --profile aws -p fleeting-plugin-aws
	mkdir -p dist
	cp target/aws/fleeting-plugin-aws dist/

# The same two for tests, fast to build. Prints where they are.
static:
	RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_DEV_STRIP=symbols $(CARGO) build --quiet --locked \
		-p agent -p fleeting-plugin-docker --target $(HOST_TARGET) --target-dir target/static
	@echo target/static/$(HOST_TARGET)/debug

PROVIDERS := fleeting-plugin-local fleeting-plugin-mayfly fleeting-plugin-script fleeting-plugin-sim
build: agent docker
	MAYFLY_AGENTS=$(CURDIR)/dist/agents $(CARGO) build --locked --release -p manager
	$(CARGO) build --locked --release $(PROVIDERS:%=-p %)
	cp target/release/mayfly $(PROVIDERS:%=target/release/%) dist/

SECONDS ?= 600
sim:
	MAYFLY_SIM_SECONDS=$(SECONDS) $(CARGO) test --locked -p scheduler --test simulation

bench: build
	./tests/bench/run

clean:
	$(CARGO) clean
	rm -rf dist
