# Every target says what it does after ##; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help generate cluster cluster-down cluster-selftest

NAME ?= dev
DEVCLUSTER := tests/devcluster/devcluster --name $(NAME)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

generate: ## write what is generated from the sources: crds/
	@cargo build --quiet --bin service-release-operator
	@for crd in servicereleases releasecommands; do \
		cargo run --quiet --bin service-release-operator -- crd $$crd > crds/$$crd.yaml || exit 1; \
	done

cluster: ## start the embedded Kubernetes, or heal it (NAME=dev NODES=real|simulated NODE_COUNT=10 ADDONS=metrics-server)
	@$(DEVCLUSTER) up $(if $(NODES),--nodes $(NODES)) $(if $(NODE_COUNT),--node-count $(NODE_COUNT)) $(if $(ADDONS),--addons "$(ADDONS)") $(if $(AUDIT),--audit)

cluster-down: ## end it and remove every trace (NAME=dev)
	@$(DEVCLUSTER) down

cluster-selftest: ## check the embedded cluster itself: side by side, healing, no trace (1 min)
	@tests/devcluster/selftest.sh
