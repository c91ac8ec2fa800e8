#!/bin/bash
# Checks that the embedded cluster keeps its promises: two side by side, pods that reach each
# other by name, healing after any part was killed, and no trace left at the end.
set -euo pipefail
cd "$(dirname "$0")"
unset KUBECONFIG
a=selftest-a b=selftest-b s=selftest-s
state=${DEVCLUSTER_STATE:-${XDG_STATE_HOME:-/var/lib}/service-release-operator/devcluster}
scratch=$(mktemp -d)

on() { local name=$1; shift; ./devcluster --name "$name" "$@"; }
kube() { local name=$1; shift; kubectl --kubeconfig "$state/$name/kubeconfigs/admin" "$@"; }
step() { echo "== ($SECONDS s) $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
finish() {
    local result=$?
    if [ $result != 0 ]; then echo "the clusters are left as they are: ./devcluster status" >&2; fi
    rm -rf "$scratch"
}
trap finish EXIT

# eventually SECONDS COMMAND...: the command succeeds before the time is over
eventually() {
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not within the time: $*"
        sleep 0.2
    done
}

service_answers() { curl -fsS -m 2 -o /dev/null "http://$(cat "$scratch/$1.ip")/busybox"; }
pods_of() { kube "$1" -n check get pods -l app=web -o jsonpath='{range .items[*]}{.metadata.uid}/{.status.containerStatuses[0].restartCount} {end}'; }

crash_loops() { kube $s get pods -l app=broken --no-headers | grep CrashLoopBackOff; }

deploy() {
    local name=$1
    ./devcluster image rootfs "$scratch/root" /bin/busybox:/bin/busybox "$(command -v curl)"
    on "$name" image load localhost/selftest:1 "$scratch/root" --user 65532:65532 --entrypoint /bin/busybox
    kube "$name" create namespace check
    kube "$name" label namespace check pod-security.kubernetes.io/enforce=restricted
    kube "$name" -n check apply -f - <<'MANIFEST'
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: &pod
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: localhost/selftest:1
        args: [httpd, -f, -p, "8080", -h, /bin]
        resources: {requests: {cpu: 10m}, limits: {cpu: 500m, memory: 64Mi}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
MANIFEST
    kube "$name" -n check rollout status deployment/web --timeout=60s
    kube "$name" -n check get service web -o jsonpath='{.spec.clusterIP}' >"$scratch/$name.ip"
    eventually 20 service_answers "$name"
}

# What the runtime keeps of each container outside the state directory: its own files, and the
# socket of the shim.
note_containers() {
    local task tasks=$state/$1/containerd/run/io.containerd.runtime.v2.task/k8s.io
    for task in "$tasks"/*; do
        echo "/run/containerd/runc/k8s.io/$(basename "$task")"
        if [ -e "$task/address" ]; then sed 's#^unix://##' "$task/address"; echo; fi
    done >"$scratch/$1.containers"
    [ "$(wc -l <"$scratch/$1.containers")" -gt 4 ] || fail "$1 has no containers in $tasks"
}

traces() {
    local name=$1 found
    found=$(for process in /proc/[0-9]*; do
        if { tr '\0' ' ' <"$process/cmdline" | grep -q "$state/$name/"; } 2>/dev/null; then echo "$process"; fi
    done)
    [ -z "$found" ] || fail "processes of $name remain: $found"
    ! grep "$state/$name/" /proc/mounts || fail "mounts of $name remain"
    ! find /sys/fs/cgroup -maxdepth 3 -name "devcluster-$name" | grep . || fail "control groups of $name remain"
    ! find /var/log/containers -lname "$state/$name/*" 2>/dev/null | grep . || fail "links to logs of $name remain"
    ! grep -rls "$state/$name/" /var/lib/cni || fail "CNI results of $name remain"
    if [ -e "$scratch/$name.containers" ]; then
        ! ls -d $(cat "$scratch/$name.containers") 2>/dev/null || fail "files of the runtime of $name remain"
    fi
    [ ! -e "$state/$name" ] || fail "$state/$name remains"
}

# Other clusters may come and go meanwhile: what counts is that each device has its cluster.
orphaned_links() {
    local index
    for index in $(ip -o link | grep -o ' devcluster[0-7]@' | tr -dc '0-7\n'); do
        grep -qs "\"index\": $index," "$state"/*/cluster.json || echo "devcluster$index"
    done
}

step "two clusters side by side"
on $a down; on $b down; on $s down
on $a up --kubeconfig "$scratch/a.kubeconfig"
on $b up --kubeconfig "$scratch/b.kubeconfig"
kubectl --kubeconfig "$scratch/a.kubeconfig" get --raw /readyz >/dev/null
deploy $a
deploy $b
[ "$(kube $a get nodes -o name)" = node/devcluster-$a ] || fail "$a has other nodes than its own"
[ "$(kube $b get nodes -o name)" = node/devcluster-$b ] || fail "$b has other nodes than its own"

step "a pod reaches the Service by its name"
pod=$(kube $a -n check get pods -l app=web -o jsonpath='{.items[0].metadata.name}')
kube $a -n check exec "$pod" -- curl -fsS -m 5 -o /dev/null http://web/busybox
kube $a -n check exec "$pod" -- curl -fsS -m 5 -o /dev/null http://web.check.svc.cluster.local/busybox
on $a exec -- curl -fsS -m 5 -o /dev/null "http://$(cat "$scratch/$a.ip")/busybox"

step "pods live on while everything around them is killed, and the cluster heals"
before=$(pods_of $a)
on $a kill etcd containerd kubelet kube-apiserver kube-proxy
service_answers $a || fail "the Service does not answer without the control plane"
on $a up --kubeconfig "$scratch/a.kubeconfig"
[ "$(pods_of $a)" = "$before" ] || fail "pods were replaced or restarted: $before, now $(pods_of $a)"
service_answers $a

step "an image that is not there is reported soon, wherever it is said to be"
kube $a -n default run absent --image=registry.invalid/absent:1
eventually 10 kube $a -n default wait --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=ErrImagePull pod/absent --timeout=1s

step "stop, continue, compact"
on $a stop kube-apiserver
! kube $a get --raw /readyz --request-timeout=2s >/dev/null 2>&1 || fail "a stopped API server answers"
on $a cont kube-apiserver
eventually 20 kube $a get --raw /readyz
on $a stop etcd
on $a up --kubeconfig "$scratch/a.kubeconfig"
on $a compact | grep -q "compacted to revision [1-9]"
kube $a -n check get deployment web >/dev/null

step "heals after the network namespace went with everything in it"
on $a kill all
! service_answers $a 2>/dev/null || fail "the Service answers without a network"
service_answers $b || fail "$b was harmed by what happened to $a"
on $a up --kubeconfig "$scratch/a.kubeconfig"
kube $a -n check rollout status deployment/web --timeout=60s
eventually 60 service_answers $a
service_answers $b

step "simulated nodes, beside the real one"
on $s up --nodes simulated --node-count 3 --audit --kubeconfig "$scratch/s.kubeconfig"
kube $s create deployment web --image=none --replicas=20
kube $s rollout status deployment/web --timeout=30s
kube $s create deployment broken --image=none --replicas=2 --dry-run=client -o json |
    jq '.spec.template.metadata.annotations={"devcluster/simulate": "crash"}' | kube $s apply -f -
eventually 20 crash_loops
on $s kill kwok etcd
on $s up --node-count 5 --kubeconfig "$scratch/s.kubeconfig"
kube $s scale deployment/web --replicas=30
kube $s rollout status deployment/web --timeout=30s
grep -q '"resource":"deployments"' "$state/$s/logs/audit.json" || fail "the audit log knows of no deployment"
on $s down
traces $s

step "nothing remains"
note_containers $a
note_containers $b
on $a down
service_answers $b || fail "$b was harmed by the end of $a"
traces $a
on $b down
traces $b
[ -z "$(orphaned_links)" ] || fail "network devices remain: $(orphaned_links)"
step "all is well"
