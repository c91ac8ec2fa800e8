// Who may say what to which release: ordinary users on an API server with the chart installed.
package packaging

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

const shopSpace = "policy"

// grants gives each user of these tests what the chart's comments say to give them.
func grants(t *testing.T) {
	t.Helper()
	if _, err := kubectl(t, "get", "namespace", shopSpace); err == nil {
		return
	}
	commands := [][]string{
		{"create", "namespace", shopSpace},
		{"-n", shopSpace, "create", "role", "say-commands", "--verb=create", "--resource=releasecommands.servicerelease.io"},
		{"-n", shopSpace, "create", "role", "abort-shop", "--verb=abort", "--resource=servicereleases.servicerelease.io", "--resource-name=shop"},
		{"-n", shopSpace, "create", "rolebinding", "say-commands", "--role=say-commands", "--user=nina"},
		{"-n", shopSpace, "create", "rolebinding", "abort-shop", "--role=abort-shop", "--user=nina"},
		{"-n", shopSpace, "create", "rolebinding", "releasers", "--clusterrole=" + release + "-releaser", "--group=releasers"},
		{"-n", shopSpace, "create", "rolebinding", "approvers", "--clusterrole=" + release + "-approver", "--user=paul"},
		{"-n", shopSpace, "create", "rolebinding", "viewers", "--clusterrole=" + release + "-viewer", "--user=vera"},
		{"-n", shopSpace, "create", "rolebinding", "editors", "--clusterrole=edit", "--user=eddy"},
	}
	for _, command := range commands {
		out, err := kubectl(t, command...)
		must(t, out, err)
	}
	// The API server takes up a new policy some moments after it was created.
	forged := command("Abort", "shop", map[string]any{"requestedBy": "nobody"})
	for deadline := time.Now().Add(30 * time.Second); create(t, forged, "--dry-run=server") == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the admission policy is not in force")
		}
	}
}

// command is a ReleaseCommand with these fields and a revision.
func command(action, release string, fields map[string]any) object {
	spec := map[string]any{"release": release, "action": action, "revision": "abc"}
	maps.Copy(spec, fields)
	return object{
		"apiVersion": "servicerelease.io/v1alpha1", "kind": "ReleaseCommand",
		"metadata": map[string]any{"generateName": "say-", "namespace": shopSpace}, "spec": spec,
	}
}

func TestCommandsAreAllowedOneByOne(t *testing.T) {
	grants(t)
	nina := []string{"--as=nina"}
	rosa := []string{"--as=rosa", "--as-group=releasers"}
	paul := []string{"--as=paul"}
	by := func(name string) map[string]any { return map[string]any{"requestedBy": name} }
	remedy := "kubectl -n policy create role %[1]s-%[2]s --verb=%[1]s --resource=servicereleases.servicerelease.io --resource-name=%[2]s"
	for _, test := range []struct {
		name            string
		as              []string
		action, release string
		fields          map[string]any
		refusal         string // empty: allowed
	}{
		{"the one action on the one release", nina, "Abort", "shop", nil, ""},
		{"with her own name", nina, "Abort", "shop", by("nina"), ""},
		{"another action", nina, "Promote", "shop", nil, `"nina" may not promote ServiceRelease "shop" in namespace "policy"`},
		{"another action: the remedy", nina, "Promote", "shop", nil, fmt.Sprintf(remedy, "promote", "shop")},
		{"another release", nina, "Abort", "billing", nil, `"nina" may not abort ServiceRelease "billing"`},
		{"another's name", nina, "Abort", "shop", by("paul"), `spec.requestedBy is "paul", but you are "nina"; write your own name or leave the field out`},
		{"a releaser promotes", rosa, "Promote", "shop", map[string]any{"full": true}, ""},
		{"a releaser undoes any release", rosa, "Undo", "billing", nil, ""},
		{"a releaser retries", rosa, "Retry", "shop", nil, ""},
		{"a releaser pauses", rosa, "Pause", "shop", nil, ""},
		{"a releaser resumes", rosa, "Resume", "shop", nil, ""},
		{"a releaser skips", rosa, "Skip", "shop", nil, ""},
		{"a releaser does not approve", rosa, "Approve", "shop", nil, `"rosa" may not approve`},
		{"an approver approves", paul, "Approve", "shop", nil, ""},
		{"an approver does not promote", paul, "Promote", "shop", nil, `"paul" may not promote`},
		{"a viewer says nothing", []string{"--as=vera"}, "Abort", "shop", nil, "cannot create resource"},
		{"edit gives no right to command", []string{"--as=eddy"}, "Abort", "shop", nil, "cannot create resource"},
		{"an administrator of the cluster", nil, "Approve", "shop", nil, ""},
		{"even an administrator under his own name only", nil, "Approve", "shop", by("rosa"), `spec.requestedBy is "rosa"`},
	} {
		err := create(t, command(test.action, test.release, test.fields), test.as...)
		switch {
		case test.refusal == "" && err != nil:
			t.Errorf("%s: refused: %v", test.name, err)
		case test.refusal != "" && err == nil:
			t.Errorf("%s: allowed", test.name)
		case test.refusal != "" && !strings.Contains(err.Error(), test.refusal):
			t.Errorf("%s: refused without saying %q: %v", test.name, test.refusal, err)
		}
	}
}

// Decisions and evidence are the operator's to write: no role for people, nor edit, reaches them.
func TestNobodyWritesAStatus(t *testing.T) {
	grants(t)
	for _, as := range [][]string{{"--as=eddy"}, {"--as=paul"}, {"--as=rosa", "--as-group=releasers"}} {
		for _, resource := range []string{"servicereleases", "releasecommands"} {
			for _, verb := range []string{"patch", "update"} {
				args := append([]string{"auth", "can-i", verb, resource + ".servicerelease.io", "--subresource=status", "-n", shopSpace}, as...)
				if out, _ := kubectl(t, args...); strings.TrimSpace(out) != "no" {
					t.Errorf("%v may %s %s/status", as, verb, resource)
				}
			}
		}
	}
}

func TestCommandsAreImmutable(t *testing.T) {
	grants(t)
	fixed := command("Abort", "shop", nil)
	fixed["metadata"] = map[string]any{"name": "fixed", "namespace": shopSpace}
	if err := create(t, fixed); err != nil {
		t.Fatal(err)
	}
	_, err := kubectl(t, "-n", shopSpace, "patch", "releasecommand", "fixed", "--type=merge", "-p", `{"spec":{"release":"billing"}}`)
	if err == nil || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("the release of a command was changed: %v", err)
	}
}
