// What the operator's account may do: nothing beyond its work, said statically of every variant of
// the chart, and asked of an API server's authorizer.
package packaging

import (
	"slices"
	"strings"
	"testing"
	"time"
)

type rule struct{ groups, resources, verbs []string }

func rules(t *testing.T, role object) []rule {
	t.Helper()
	list := func(value any) []string {
		var texts []string
		items, _ := value.([]any)
		for _, item := range items {
			texts = append(texts, item.(string))
		}
		return texts
	}
	var found []rule
	for _, item := range role["rules"].([]any) {
		fields := item.(map[string]any)
		if fields["nonResourceURLs"] != nil {
			t.Errorf("%s allows URLs", role.name())
		}
		found = append(found, rule{list(fields["apiGroups"]), list(fields["resources"]), list(fields["verbs"])})
	}
	return found
}

// Each right here is one that the operator has a reason for, given in the chart beside it.
var needed = map[string][]string{
	"servicerelease.io/servicereleases":            {"get", "list", "watch", "patch"},
	"servicerelease.io/servicereleases/status":     {"patch"},
	"servicerelease.io/servicereleases/finalizers": {"update"},
	"servicerelease.io/releasecommands":            {"get", "list", "watch", "delete"},
	"servicerelease.io/releasecommands/status":     {"patch"},
	"servicerelease.io/analysistemplates":          {"get"},
	"servicerelease.io/clusteranalysistemplates":   {"get"},
	"apps/replicasets":                             {"get", "list", "watch", "create", "patch", "delete"},
	"apps/controllerrevisions":                     {"get", "list", "watch", "create", "delete"},
	"apps/deployments":                             {"get", "list", "watch"},
	"apps/deployments/scale":                       {"patch"},
	"/pods":                                        {"list", "watch"},
	"/pods/log":                                    {"get"},
	"batch/jobs":                                   {"get", "list", "watch", "create", "delete"},
	"/configmaps":                                  {"get", "list", "watch", "patch"},
	"/services":                                    {"get", "list", "watch", "create", "patch"},
	"discovery.k8s.io/endpointslices":              {"list", "watch"},
	"gateway.networking.k8s.io/httproutes":         {"get", "list", "watch", "create", "patch", "delete"},
	"gateway.networking.k8s.io/grpcroutes":         {"get", "list", "watch", "create", "patch", "delete"},
	"gateway.networking.k8s.io/gateways":           {"list", "watch"},
	"gateway.networking.k8s.io/gatewayclasses":     {"list", "watch"},
	// Only where routers.enabled says so.
	"traefik.io/traefikservices":           {"get", "patch"},
	"projectcontour.io/httpproxies":        {"get", "patch"},
	"networking.istio.io/virtualservices":  {"get", "patch"},
	"apisix.apache.org/apisixroutes":       {"get", "patch"},
	"networking.k8s.io/ingresses":          {"get", "patch"},
	"autoscaling/horizontalpodautoscalers": {"list", "watch"},
	"events.k8s.io/events":                 {"create"},
	"coordination.k8s.io/leases":           {"create", "get", "list", "watch", "update"},
}

func TestOperatorHasNoRightWithoutReason(t *testing.T) {
	for name, settings := range variants {
		for _, role := range append(ofKind(render(t, settings...), "ClusterRole"), ofKind(render(t, settings...), "Role")...) {
			if isForPeople(role) {
				continue
			}
			for _, rule := range rules(t, role) {
				for _, group := range rule.groups {
					for _, resource := range rule.resources {
						for _, verb := range rule.verbs {
							if !slices.Contains(needed[group+"/"+resource], verb) {
								t.Errorf("%s: %s %s may %s %s/%s", name, role.kind(), role.name(), verb, group, resource)
							}
						}
					}
				}
			}
		}
	}
}

func isForPeople(role object) bool {
	for _, suffix := range []string{"-viewer", "-releaser", "-approver"} {
		if strings.HasSuffix(role.name(), suffix) {
			return true
		}
	}
	return false
}

func TestRolesForPeopleAreNotAggregated(t *testing.T) {
	people := 0
	for _, role := range ofKind(render(t), "ClusterRole") {
		labels, _ := role.at("metadata", "labels").(map[string]any)
		for label := range labels {
			if strings.HasPrefix(label, "rbac.authorization.k8s.io/aggregate-to") {
				t.Errorf("%s has %s", role.name(), label)
			}
		}
		if !isForPeople(role) {
			continue
		}
		people++
		for _, rule := range rules(t, role) {
			for _, resource := range rule.resources {
				if strings.Contains(resource, "/") {
					t.Errorf("%s may write %s", role.name(), resource)
				}
			}
		}
	}
	if people != 3 {
		t.Errorf("%d roles for people, want 3", people)
	}
}

func TestWatchedNamespacesGetRolesOnly(t *testing.T) {
	objects := render(t, variants["one namespace"]...)
	for _, role := range ofKind(objects, "ClusterRole") {
		if !isForPeople(role) {
			t.Errorf("ClusterRole %s", role.name())
		}
	}
	if bindings := ofKind(objects, "ClusterRoleBinding"); len(bindings) > 0 {
		t.Errorf("ClusterRoleBinding %s", bindings[0].name())
	}
	spaces := map[any]bool{}
	for _, role := range ofKind(objects, "Role") {
		spaces[role.at("metadata", "namespace")] = true
	}
	for _, space := range []string{"shop", "billing", namespace} {
		if !spaces[space] {
			t.Errorf("no Role in %s", space)
		}
	}
	for _, binding := range ofKind(objects, "RoleBinding") {
		subject := object(binding["subjects"].([]any)[0].(map[string]any))
		if subject["name"] != release || subject["namespace"] != namespace {
			t.Errorf("RoleBinding %s in %v is for %v", binding.name(), binding.at("metadata", "namespace"), subject)
		}
	}
	for _, role := range ofKind(objects, "Role") {
		isLease := strings.HasSuffix(role.name(), "-leader")
		if inOwn := role.at("metadata", "namespace") == namespace; inOwn != isLease {
			t.Errorf("Role %s in %v", role.name(), role.at("metadata", "namespace"))
		}
	}
}

// The authorizer's own answer, over everything that is bound to the account, by whatever way.
func TestAuthorizerRefusesTheOperatorWhatItMustNotHave(t *testing.T) {
	account := "system:serviceaccount:" + namespace + ":" + release
	out, err := kubectl(t, "auth", "can-i", "--list", "--as", account, "-n", "default")
	list := must(t, out, err)
	for _, word := range []string{"secrets", "escalate", "bind", "impersonate", "*.*"} {
		if strings.Contains(list, word) {
			t.Errorf("%s in\n%s", word, list)
		}
	}
	for question, want := range map[string]bool{
		"list servicereleases.servicerelease.io": true, "create replicasets.apps": true, "patch services": true,
		"get secrets": false, "create pods": false, "delete pods": false, "create pods/exec": false,
		"update servicereleases.servicerelease.io": false, "create releasecommands.servicerelease.io": false,
		"patch deployments.apps": false, "delete services": false, "update leases.coordination.k8s.io": false,
		"patch configmaps": true, "create configmaps": false, "update configmaps": false, "delete configmaps": false, "create serviceaccounts/token": false, "list nodes": false,
	} {
		args := append([]string{"auth", "can-i", "--as", account, "-n", "default"}, strings.Fields(question)...)
		out, _ := kubectl(t, args...)
		if got := strings.TrimSpace(out) == "yes"; got != want {
			t.Errorf("%s: %v, want %v", question, got, want)
		}
	}
}

// Which ConfigMaps a release may switch is their owners' word, the label; RBAC cannot read it.
func TestTheOperatorWritesNoConfigMapWithoutTheLabel(t *testing.T) {
	for name, label := range map[string]string{"switches": "servicerelease.io/release=shop", "private": "app=shop"} {
		kubectl(t, "-n", "default", "delete", "configmap", name, "--ignore-not-found")
		out, err := kubectl(t, "-n", "default", "create", "configmap", name, "--from-literal=a=1")
		must(t, out, err)
		out, err = kubectl(t, "-n", "default", "label", "configmap", name, label)
		must(t, out, err)
	}
	set := func(name, value string) error {
		_, err := kubectl(t, "-n", "default", "patch", "configmap", name, "--type=merge", "--patch", `{"data":{"a":"`+value+`"}}`,
			"--as", "system:serviceaccount:"+namespace+":"+release)
		return err
	}
	// The API server takes up a new policy some moments after it was created.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Second / 5) {
		err := set("private", "2")
		if err != nil && strings.Contains(err.Error(), "only ConfigMaps that have the label") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it may write what has no label: %v", err)
		}
	}
	if err := set("switches", "2"); err != nil {
		t.Error(err)
	}
	out, err := kubectl(t, "-n", "default", "patch", "configmap", "private", "--type=merge", "--patch", `{"data":{"a":"3"}}`)
	must(t, out, err)
}
