#!/bin/sh
# Writes what is derived: the chart's and kustomize's copies of crds/, kustomize's manifests from the
# chart, Argo CD's settings from the Lua scripts. `make generate` calls it; a test runs it on a copy
# of the tree and compares.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
helm=${HELM:-$(tests/devcluster/devcluster tool helm)}
chart=charts/service-release-operator

# Files that are no longer in the source must not stay in a copy.
rm -f $chart/files/crds/*
mkdir -p $chart/files/crds
cp crds/*.yaml $chart/files/crds/
awk 'BEGIN { print "# Made from crds/ by `make generate`." } FNR == 1 { print "---" } { print }' crds/*.yaml \
    > deploy/kustomize/crds/crds.yaml

# Renders the chart as plain manifests: without what only Helm reads.
render() {
    output=$1
    shift
    {
        echo "# Made from $chart by \`make generate\`; change it there."
        "$helm" template service-release-operator $chart --kube-version 1.30 \
            --namespace service-release-system --set crds.install=false "$@" |
            grep -v -e '^ *helm.sh/chart:' -e '^ *app.kubernetes.io/managed-by:' -e '^# Source:'
    } > "$output"
}
render deploy/kustomize/base/operator.yaml
render deploy/kustomize/one-namespace/operator.yaml --set 'watchNamespaces={service-release-system}'

render deploy/kustomize/analysis-templates/templates.yaml --set analysisTemplates.create=true \
    --show-only templates/analysistemplates.yaml

deploy/argocd/generate.sh
