# Every target says what it does after ##; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test lint unit simulation metrics database packaging api e2e bench bench-judge bench-gateway generate cluster cluster-down cluster-selftest

NAME ?= dev
DEVCLUSTER := tests/devcluster/devcluster --name $(NAME)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## five releases on a real cluster, two of them bad, under a client that counts (30 min cold, 2 min warm)
	@deploy/demo/run

# In the order of what they cost. Each can be run by itself. Cargo unites the features of the packages that it is asked for:
# it is always asked for the whole workspace, and for tests, or the dependencies would be built again and again.
STAGES := lint unit simulation metrics database packaging api e2e

test: ## everything: the stages below, one after the other
	@tests/setup/stages $(STAGES)

lint: ## format, clippy, docs
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo clippy --quiet --workspace --test e2e -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	cd tests/devcluster && test -z "$$(gofmt -l .)" && go vet .

unit: ## tests of the parts and of the test application, generated files
	cargo test --quiet --workspace --lib --bins
	cargo test --quiet --workspace --test load --test serve

simulation: ## the engine in an unfair cluster in memory, and mutants of it
	cargo test --quiet --workspace --test simulation -- --nocapture

metrics: ## the provider and the ready-made templates, on a Prometheus of this machine
	PROMETHEUS="$$(tests/devcluster/devcluster tool prometheus)" cargo test --quiet --workspace --test metrics

database: ## migrations on a PostgreSQL of this machine, broken off at every message (POSTGRES=/usr/lib/postgresql/17/bin for another one)
	@tests/devcluster/devcluster tool postgres >/dev/null
	PATH="$${POSTGRES:-/usr/lib/postgresql/15/bin}:$$PATH" PGBOUNCER="$$(tests/devcluster/devcluster tool pgbouncer)" cargo test --quiet --workspace --test database

packaging: ## chart, kustomize, generated files, roles, admission policy, examples, Argo CD scripts; on simulated nodes
	cd tests/packaging && test -z "$$(gofmt -l .)" && go vet . && go test -count=1 -timeout=60m .

api: ## the controller on simulated nodes, with faults between it and the API server
	@DEVCLUSTER_NAME=api tests/devcluster/devcluster up --nodes simulated --addons gateway
	KUBECONFIG="$$(tests/devcluster/devcluster --name api kubeconfig)" DEVCLUSTER_NAME=api cargo test --quiet --workspace --test api

e2e: ## scenarios on a real cluster, under a client that never retries (ARGS='words of names' or --list)
	@bash -euc 'export ADDONS="metrics-server gateway contour prometheus" TOOLS="k6 postgres prisma flyway golang-migrate" BUILD="test --no-run --test e2e --test serve"; source tests/setup/env.sh; cargo test --quiet --workspace --test e2e -- $(ARGS)'

bench: ## figures beside the peers', on simulated nodes, into target/bench.md (BENCH=--five-hundred for more), then bench-judge, bench-gateway
	@echo "takes about 15 minutes after the build; leave the machine alone meanwhile"
	@cargo build --quiet --release -p service-release-operator -p bench --bin service-release-operator --bin operator-bench
	@target/release/operator-bench $(BENCH)
	@$(MAKE) --no-print-directory bench-judge
	@$(MAKE) --no-print-directory bench-gateway

bench-judge: ## how often good and bad canaries are aborted, simulated (some seconds after the build), into target/bench-judge.md
	@cargo run --quiet --release -p bench --bin judge-bench

bench-gateway: ## what shifts over a real gateway cost, and how long a rollback by a metric takes, into target/bench-{gateway,rollback}.md
	@echo "takes about 20 minutes after the build; leave the machine alone meanwhile"
	@bash -euc 'export PROFILE=release ADDONS="metrics-server gateway contour prometheus"; source tests/setup/env.sh; \
		export K6=$$(tests/devcluster/devcluster tool k6); \
		{ echo "| scenario | failed / requests | share meant: observed ± 99% (%) | from the decision on record to the traffic |"; \
		  echo "| --- | ---: | --- | --- |"; } >target/bench-gateway.md; \
		{ echo "| what is watched | failed requests | from what shows it (the first bad sample, the status of a pod, or that it was told) to the last request given to the candidate: least / median / greatest (each run), s | the same from the moment it was told to be bad |"; \
		  echo "| --- | ---: | --- | --- |"; } >target/bench-rollback.md; \
		cargo test --quiet --workspace --test e2e -- --bench $(ARGS); cat target/bench-gateway.md target/bench-rollback.md'

generate: ## write what is generated: crds/ from the types, copies and manifests under charts/ and deploy/
	@cargo build --quiet --bin service-release-operator
	@for crd in servicereleases releasecommands analysistemplates clusteranalysistemplates; do \
		cargo run --quiet --bin service-release-operator -- crd $$crd > crds/$$crd.yaml || exit 1; \
	done
	@deploy/generate.sh

cluster: ## start the embedded Kubernetes, or heal it (NAME=dev NODES=real|simulated NODE_COUNT=10 ADDONS="metrics-server gateway")
	@$(DEVCLUSTER) up $(if $(NODES),--nodes $(NODES)) $(if $(NODE_COUNT),--node-count $(NODE_COUNT)) $(if $(ADDONS),--addons "$(ADDONS)") $(if $(AUDIT),--audit)

cluster-down: ## end it and remove every trace (NAME=dev)
	@$(DEVCLUSTER) down

cluster-selftest: ## check the embedded cluster itself: side by side, healing, no trace (1 min)
	@tests/devcluster/selftest.sh
