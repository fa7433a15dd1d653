# The front door. `make` alone prints the targets. Needs a POSIX shell, make, and any Node >= 20
# with npm: `npm ci` brings the Node that brewctl itself runs on (see docs/decisions).

# The pinned Node comes first, for npm's scripts as for ours.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

BREWCTL := bin/brewctl
SOURCES := $(shell find src -name '*.ts') package.json rolldown.config.ts
# Flags, as in: make run-subscribe ARGS="--limit 0"
ARGS ?=

.PHONY: help
help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

# ── set-up: every target below sees to it ──

.PHONY: install build
install: node_modules/.installed ## install the dependencies as package-lock.json has them

node_modules/.installed: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

build: dist/brewctl.cjs ## bundle src/ into dist/ if it changed

dist/brewctl.cjs: node_modules/.installed $(SOURCES)
	@npm run --silent build
	@touch $@

# ── the lesson ──

.PHONY: demo run-server run-subscribe run-upload run-chat run-backpressure run-store-sync
demo: build ## play the lessons: a server, its clients, a store's morning
	@$(BREWCTL) demo $(ARGS)

# make reads a word that begins with a dash as an option of its own, before it reads this file. After
# `--` it takes -count=20 for a variable, and those are the lesson's flags: make run-chat -- -count=20
FLAGS = $(filter -%,$(MAKEOVERRIDES)) $(ARGS)

# Of what comes without `--`, only -limit=0 gets here, as make's own -l imit=0.
.PHONY: flags-are-ours
run-server run-subscribe run-upload run-chat run-store-sync: flags-are-ours
flags-are-ours:
	@case " $(MAKEFLAGS)" in *" -l"*) \
	  echo 'make took that flag for its own; write: make run-subscribe -- -limit=0' >&2; exit 2;; \
	esac

run-server: build ## the server, on :50052 until Ctrl+C
	@exec $(BREWCTL) serve $(FLAGS)

run-subscribe: build ## server stream: five orders, one a second
	@exec $(BREWCTL) subscribe $(FLAGS)

run-upload: build ## client stream: 20 records, 3 of them bad
	@exec $(BREWCTL) upload $(FLAGS)

run-chat: build ## bidirectional stream: five pings
	@exec $(BREWCTL) chat $(FLAGS)

run-backpressure: build ## a client that is faster than its server, as a picture; needs no server
	@sh scripts/run-scenarios slow-server

run-store-sync: build ## the store bridge: a store's morning, with an outage; needs no server
	@exec $(BREWCTL) demo store $(FLAGS)

# ── checks ──

.PHONY: test lint types lint-proto check-generate scenarios scenario test-system soak fuzz ci
test: build ## all tests that need nothing but Node
	@npx --no-install vitest run $(ARGS)

lint: install ## format and lint
	@npx --no-install biome check .

types: install ## type check
	@npx --no-install tsc -p .

lint-proto: install ## lint the protobuf contract
	@npx --no-install buf lint

check-generate: install ## is src/gen what proto/ generates?
	@sh scripts/check-generate

scenarios: build ## run every script in scenarios/
	@sh scripts/run-scenarios

scenario: build ## run one of them: make scenario NAME=client-gone
	@sh scripts/run-scenarios "$(NAME)"

test-system: build ## tests that need npm, git, make, strace, Go, old Nodes and other shells
	@sh scripts/install-packages zsh fish strace jq
	@sh scripts/go version >/dev/null 2>&1 || sh scripts/install-packages go=golang-go
	@npx --no-install vitest run --config vitest.system.config.ts $(ARGS)

soak: build ## stampede, kills, a long life, attacks: nothing lost, nothing grows; an hour
	@node test/soak/main.ts $(ARGS)

fuzz: build ## a minute of random calls to the servers: none brings one down; --seed replays
	@node test/soak/main.ts fuzz --seconds 60 $(ARGS)

ci: install lint types lint-proto check-generate test fuzz scenarios test-system ## all of it, as CI runs it

# ── work ──

.PHONY: bench format generate clean
bench: build ## measure our code beside what else there is; some minutes
	@node bench/main.ts $(ARGS)

format: install ## fix what the formatter and linter can fix
	@npx --no-install biome check --write .

generate: install ## src/gen from proto/
	@npx --no-install buf generate

clean: ## remove what was built and installed
	rm -rf dist node_modules
