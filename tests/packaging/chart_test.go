// The chart: what it renders, what it refuses, and that copies and derived files are up to date.
package packaging

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Settings that users have; none may break the chart.
var variants = map[string][]string{
	"default":       nil,
	"one namespace": {"watchNamespaces={shop,billing}"},
	"everything on": {
		"analysisTemplates.create=true", "metrics.serviceMonitor.create=true", "metrics.serviceMonitor.labels.team=sre", "priorityClassName=high",
		"image.digest=sha256:" + strings.Repeat("0", 64), "imagePullSecrets[0].name=pull", "serviceAccount.annotations.a=b",
		"nodeSelector.disk=ssd", "tolerations[0].operator=Exists", "podLabels.a=b", "podAnnotations.a=b", "log.filter=debug", "extraArgs={--concurrency=32}",
		"providers.default.prometheus=https://prometheus.monitoring.svc:9090", "providers.default.bearerTokenFile=/etc/providers/prom/token", "providerSecrets={prom}",
		"providers.apm.web=https://apm.example.com/api", "providers.apm.headerFiles.X-Api-Key=/etc/providers/prom/key", "networkPolicy.egress[0].to[0].ipBlock.cidr=192.0.2.2/32",
		"routers.enabled={traefik-service,contour-httpproxy,istio-virtualservice,apisix-route,nginx-canary-ingress}",
		"networkPolicy.apiServer.cidrs={192.0.2.1/32}", "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
	},
	"everything off": {
		"replicas=1", "crds.install=false", "roles.create=false", "admissionPolicy.create=false", "networkPolicy.create=false",
		"podDisruptionBudget.create=false", "serviceAccount.create=false", "serviceAccount.name=other",
	},
}

func TestChartPassesHelmLint(t *testing.T) {
	for name, settings := range variants {
		args := []string{"lint", "--strict", "--kube-version", "1.30", chart}
		for _, setting := range settings {
			args = append(args, "--set", setting)
		}
		if out, err := helm(t, args...); err != nil {
			t.Errorf("%s: %v%s", name, err, out)
		}
	}
}

func TestEveryVariantRendersWithoutDuplicates(t *testing.T) {
	for name, settings := range variants {
		seen := map[string]bool{}
		for _, o := range render(t, settings...) {
			space, _ := o.at("metadata", "namespace").(string)
			key := o.kind() + " " + space + "/" + o.name()
			if seen[key] {
				t.Errorf("%s: %s is rendered twice", name, key)
			}
			seen[key] = true
		}
	}
}

func TestOptionsSwitchWhatTheySay(t *testing.T) {
	count := func(kind, variant string) int { return len(ofKind(render(t, variants[variant]...), kind)) }
	for _, test := range []struct {
		kind            string
		normal, on, off int
	}{
		{"CustomResourceDefinition", 4, 4, 0},
		{"ClusterAnalysisTemplate", 0, 6, 0},
		{"PodDisruptionBudget", 1, 1, 0},
		{"NetworkPolicy", 1, 1, 0},
		{"ServiceMonitor", 0, 1, 0},
		{"ServiceAccount", 1, 1, 0},
		{"ValidatingAdmissionPolicy", 2, 2, 0},
		{"ClusterRole", 4, 4, 1},
	} {
		got := [3]int{count(test.kind, "default"), count(test.kind, "everything on"), count(test.kind, "everything off")}
		if got != [3]int{test.normal, test.on, test.off} {
			t.Errorf("%s: default, on, off: %v", test.kind, got)
		}
	}
}

func crds(t *testing.T) []object {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "crds/*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatalf("crds/ has %d files, want 4 (%v)", len(files), err)
	}
	var found []object
	for _, file := range files {
		text, err := os.ReadFile(file)
		found = append(found, parse(t, must(t, string(text), err))...)
	}
	return found
}

func TestChartHasTheCRDsAndKeepsThem(t *testing.T) {
	rendered := ofKind(render(t), "CustomResourceDefinition")
	for _, want := range crds(t) {
		found := false
		for _, got := range rendered {
			if got.name() != want.name() {
				continue
			}
			found = true
			if !reflect.DeepEqual(got["spec"], want["spec"]) {
				t.Errorf("%s differs from crds/: run make generate", got.name())
			}
			annotations, _ := got.at("metadata", "annotations").(map[string]any)
			if annotations["helm.sh/resource-policy"] != "keep" {
				t.Errorf("%s would be deleted by helm uninstall, with every release in the cluster", got.name())
			}
		}
		if !found {
			t.Errorf("the chart has no %s", want.name())
		}
	}
}

// A hook could delete something of somebody's; nothing here needs one.
func TestChartHasNoHooks(t *testing.T) {
	for name, settings := range variants {
		for _, o := range render(t, settings...) {
			annotations, _ := o.at("metadata", "annotations").(map[string]any)
			if _, hook := annotations["helm.sh/hook"]; hook {
				t.Errorf("%s: %s %s is a hook", name, o.kind(), o.name())
			}
		}
	}
}

func TestMistakesInValuesAreRefusedByName(t *testing.T) {
	for _, test := range []struct{ setting, message string }{
		{"replcas=3", "'replcas' not allowed"},
		{"networkPolicy.enabled=true", "'enabled' not allowed"},
		{"image.tags=x", "'tags' not allowed"},
		{"replicas=two", "'/replicas': got string, want integer"},
		{"image.pullPolicy=Sometimes", "'/image/pullPolicy': value must be one of"},
		{"image.digest=abc", "'/image/digest'"},
		{"watchNamespaces={Shop}", "'/watchNamespaces/0'"},
		{"metrics.serviceMonitor.interval=fast", "'/metrics/serviceMonitor/interval'"},
		{"serviceAccount.create=false", "serviceAccount.name is needed"},
	} {
		_, err := helm(t, "template", chart, "--kube-version", "1.30", "--set", test.setting)
		if err == nil || !strings.Contains(err.Error(), test.message) {
			t.Errorf("--set %s: want an error with %q, got %v", test.setting, test.message, err)
		}
	}
}

// Every value of values.yaml is in the schema, and the other way round.
func TestSchemaAndValuesNameTheSame(t *testing.T) {
	read := func(file string) object {
		text, err := os.ReadFile(filepath.Join(root, chart, file))
		return parse(t, must(t, string(text), err))[0]
	}
	var compare func(path string, values, schema map[string]any)
	compare = func(path string, values, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		if properties == nil {
			return
		}
		for key, value := range values {
			known, ok := properties[key].(map[string]any)
			if !ok {
				t.Errorf("%s%s is not in the schema", path, key)
			} else if fields, ok := value.(map[string]any); ok {
				compare(path+key+".", fields, known)
			}
		}
		for key := range properties {
			if _, ok := values[key]; !ok && key != "global" && path != "resources." {
				t.Errorf("%s%s is in the schema, but not in values.yaml, where it is described", path, key)
			}
		}
	}
	compare("", read("values.yaml"), read("values.schema.json"))
}

func TestDerivedFilesAreUpToDate(t *testing.T) {
	copied := t.TempDir()
	for _, dir := range []string{"crds", "charts", "deploy"} {
		if err := os.CopyFS(filepath.Join(copied, dir), os.DirFS(filepath.Join(root, dir))); err != nil {
			t.Fatal(err)
		}
	}
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run([]string{"HELM=" + path}, filepath.Join(copied, "deploy/generate.sh"))
	must(t, out, err)
	for _, dir := range []string{"charts", "deploy"} {
		if out, err := run(nil, "diff", "-r", dir, filepath.Join(copied, dir)); err != nil {
			t.Errorf("run make generate:\n%s", out)
		}
	}
}

func TestKustomizeBuilds(t *testing.T) {
	for dir, want := range map[string]string{"base": namespace, "one-namespace": "default"} {
		out, err := run(nil, "kubectl", "kustomize", "deploy/kustomize/"+dir)
		objects := parse(t, must(t, out, err))
		if len(ofKind(objects, "CustomResourceDefinition")) != 4 || len(ofKind(objects, "Deployment")) != 1 {
			t.Errorf("%s lacks CRDs or the Deployment", dir)
		}
		for _, o := range objects {
			if space := o.at("metadata", "namespace"); space != nil && space != want {
				t.Errorf("%s: %s %s is in namespace %v, want %s", dir, o.kind(), o.name(), space, want)
			}
			subjects, _ := o["subjects"].([]any)
			for _, subject := range subjects {
				if space := subject.(map[string]any)["namespace"]; space != want {
					t.Errorf("%s: %s %s binds an account of namespace %v, want %s", dir, o.kind(), o.name(), space, want)
				}
			}
		}
	}
}

func TestARouterGivesTheOperatorItsKindAndNoOther(t *testing.T) {
	granted := func(settings ...string) string {
		var found []string
		for _, role := range ofKind(render(t, settings...), "ClusterRole") {
			for _, rule := range rules(t, role) {
				if slices.Contains(rule.resources, "traefikservices") || slices.Contains(rule.resources, "virtualservices") {
					found = append(found, rule.resources...)
				}
			}
		}
		return strings.Join(found, " ")
	}
	if got := granted(); got != "" {
		t.Errorf("by default: %s", got)
	}
	if got := granted("routers.enabled={traefik-service}"); got != "traefikservices" {
		t.Errorf("with traefik-service: %s", got)
	}
	if out, err := helm(t, "template", chart, "--kube-version", "1.30", "--set", "routers.enabled={nope}"); err == nil || !strings.Contains(out+err.Error(), "traefik-service") {
		t.Errorf("an unknown router is not told with those that there are: %v %s", err, out)
	}
}
