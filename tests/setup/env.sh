# To be sourced: makes the cluster ready (tests/setup/up) and sets KUBECONFIG, TESTAPP_IMAGE,
# OPERATOR_IMAGE, PROGRAMS, and PATH with the plugin, so that `kubectl srel` works.
tests/setup/up || exit 1
source "${CARGO_TARGET_DIR:-target}/setup/env"
export PATH=$PROGRAMS:$PATH
