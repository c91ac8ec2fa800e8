// The chart and the manifests on an API server: installed, upgraded, uninstalled.
package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The pods were admitted to a namespace that enforces the restricted Pod Security Standard, and
// `helm --wait` saw them ready.
func TestOperatorRunsUnderTheRestrictedStandard(t *testing.T) {
	out, err := kubectl(t, "-n", namespace, "get", "deployment", release, "-o", "jsonpath={.status.readyReplicas}")
	if got := must(t, out, err); got != "2" {
		t.Errorf("%q pods are ready, want 2", got)
	}
}

// Kinds of gateways are not served here; the end-to-end tests apply them.
func TestExamplesAreAccepted(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy", "examples", "*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var served []string
		for _, document := range strings.Split(string(text), "\n---\n") {
			if !strings.Contains(document, "apiVersion: traefik.io/") && !strings.Contains(document, "apiVersion: projectcontour.io/") {
				served = append(served, document)
			}
		}
		part := filepath.Join(t.TempDir(), filepath.Base(file))
		if err := os.WriteFile(part, []byte(strings.Join(served, "\n---\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := kubectl(t, "apply", "--dry-run=server", "--validate=strict", "-f", part)
		if got := must(t, out, err); strings.Count(got, "(server dry run)") != len(served) || len(served) == 0 {
			t.Errorf("%s: %s", file, got)
		}
	}
}

func TestKustomizeIsAccepted(t *testing.T) {
	for _, dir := range []string{"base", "one-namespace", "analysis-templates"} {
		built, err := run(nil, "kubectl", "kustomize", "deploy/kustomize/"+dir)
		file := filepath.Join(t.TempDir(), "built.yaml")
		if err := os.WriteFile(file, []byte(must(t, built, err)), 0o600); err != nil {
			t.Fatal(err)
		}
		// Server-side apply takes what client-side apply does, and refuses unknown fields.
		out, err := kubectl(t, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", file)
		must(t, out, err)
	}
}

// An upgrade carries changed CRDs; an uninstall leaves them and the releases; a release that is
// deleted then waits for the operator until its finalizer is taken off; installing again goes on.
func TestUpgradeAndUninstallLeaveReleasesAlone(t *testing.T) {
	config := installed(t)
	helm := func(args ...string) {
		t.Helper()
		path, _ := helmPath()
		out, err := run([]string{"KUBECONFIG=" + config}, path, args...)
		must(t, out, err)
	}
	ask := func(args ...string) string {
		t.Helper()
		out, err := kubectl(t, args...)
		return must(t, out, err)
	}
	const manifest = "deploy/examples/canary.yaml"
	ask("apply", "-f", manifest)
	ask("patch", "srel", "shop", "--type=merge", "-p", `{"metadata":{"finalizers":["servicerelease.io/hand-back"]}}`)

	helm("upgrade", release, withOneMoreShortName(t), "--namespace", namespace)
	if out := ask("get", "crd", "servicereleases.servicerelease.io", "-o", "jsonpath={.spec.names.shortNames}"); !strings.Contains(out, "onemore") {
		t.Errorf("the upgrade did not change the CRD: %s", out)
	}
	helm("uninstall", release, "--namespace", namespace, "--wait")
	for _, left := range []string{"crd/servicereleases.servicerelease.io", "crd/releasecommands.servicerelease.io", "crd/analysistemplates.servicerelease.io", "srel/shop"} {
		if going := ask("get", left, "-o", "jsonpath={.metadata.deletionTimestamp}"); going != "" {
			t.Errorf("the uninstall deleted %s", left)
		}
	}
	ask("delete", "srel", "shop", "--wait=false")
	ask("get", "srel", "shop")
	ask("patch", "srel", "shop", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	ask("wait", "--for=delete", "srel/shop", "--timeout=30s")
	// The CRDs are there by now: the ready-made templates can come with the chart.
	helm("upgrade", "--install", release, chart, "--namespace", namespace, "--wait", "--timeout", "2m", "--set", "analysisTemplates.create=true")
	if out := ask("get", "clusteranalysistemplates", "-o", "name"); strings.Count(out, "golden-signals-") != 6 {
		t.Errorf("the ready-made templates: %s", out)
	}
}

func withOneMoreShortName(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, chart))); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "files/crds/*.yaml"))
	changed := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		more := strings.Replace(must(t, string(text), err), "shortNames:\n    - srel\n", "shortNames:\n    - srel\n    - onemore\n", 1)
		changed = changed || more != string(text)
		if err := os.WriteFile(file, []byte(more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !changed {
		t.Fatal("no CRD has the short name srel")
	}
	return dir
}
