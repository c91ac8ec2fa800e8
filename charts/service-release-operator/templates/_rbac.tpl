{{- /*
What the operator may do where it looks after releases: a ClusterRole, or a Role in each of
watchNamespaces. No Secrets, no wildcards, no escalate, bind or impersonate. A tenant gains nothing
through it beyond what creating a Deployment gives: a ServiceRelease runs pods as a Deployment does,
in its own namespace, under that namespace's quota, admission and Pod Security.
*/ -}}
{{- define "operator.rules" -}}
# Every `get` is the answer to a write whose response was lost.

# The releases themselves. `patch` is for metadata.finalizers alone; spec is never written.
- apiGroups: [servicerelease.io]
  resources: [servicereleases]
  verbs: [get, list, watch, patch]
# Where decisions and their evidence are recorded.
- apiGroups: [servicerelease.io]
  resources: [servicereleases/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion, where OwnerReferencesPermissionEnforcement is on (OpenShift).
- apiGroups: [servicerelease.io]
  resources: [servicereleases/finalizers]
  verbs: [update]
# What people say; removed when its retention is over. Nothing here creates one.
- apiGroups: [servicerelease.io]
  resources: [releasecommands]
  verbs: [get, list, watch, delete]
# The answer.
- apiGroups: [servicerelease.io]
  resources: [releasecommands/status]
  verbs: [patch]
# The metrics that a release shares with others, read when it begins.
- apiGroups: [servicerelease.io]
  resources: [analysistemplates]
  verbs: [get]
# One for each revision; a dry run of `create` also validates pod templates.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch, create, patch, delete]
# The plan of a release, pinned when it begins.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, delete]
# Adopted Deployments are read, and scaled: their manifests stay the user's.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# What is wrong with a candidate's pods. They are made and deleted by the ReplicaSet controller.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# How many lines of a candidate's log match, for checks by `logs`. No line is kept or told.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# The Jobs of checks and of the database's work.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Feature flags, and the key that is maintenance mode, where spec.flags or spec.maintenance says so. Only ConfigMaps with the
# label servicerelease.io/release are listed, watched and written. RBAC has no way to say so; for writes the admission
# policy does.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, patch]
# The Service that clients use: its selector is what moves traffic; created if there is none.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
# Which pods really get traffic.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# What shares the requests, where spec.traffic.router says so: the release's own route is created, in a
# user's only the weights are set. `delete` is for the preview's route, when previewHostnames is taken out.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [get, list, watch, create, patch, delete]
{{- range $name, $router := (include "operator.routers" . | fromJson) }}
# The weights in the objects of router {{ $name }}.
- apiGroups: [{{ $router.apiVersion | splitList "/" | first }}]
  resources: [{{ $router.plural }}]
  verbs: [get, patch]
{{- end }}
# Whether one scales the adopted Deployment, against the release.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
# For people who watch.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
