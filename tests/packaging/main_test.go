// Tests of what is shipped beside the programs: the chart, kustomize, roles, the admission policy,
// the examples, Argo CD's scripts. Those that ask an API server start a cluster of simulated nodes.
package packaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	chart      = "charts/service-release-operator"
	devcluster = "tests/devcluster/devcluster"
	cluster    = "packaging-test"
	namespace  = "service-release-system"
	release    = "service-release-operator"
)

var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// run gives standard output; an error holds what was written to standard error.
func run(env []string, name string, args ...string) (string, error) {
	command := exec.Command(name, args...)
	command.Dir = root
	command.Env = append(os.Environ(), env...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, problems.String())
	}
	return out.String(), nil
}

var helmPath = sync.OnceValues(func() (string, error) {
	path, err := run(nil, filepath.Join(root, devcluster), "tool", "helm")
	return strings.TrimSpace(path), err
})

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	return run(nil, path, args...)
}

// object is a manifest as it stands.
type object map[string]any

func (o object) kind() string { return o["kind"].(string) }
func (o object) name() string { return o.at("metadata", "name").(string) }

func (o object) at(path ...string) any {
	var value any = map[string]any(o)
	for _, key := range path {
		fields, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = fields[key]
	}
	return value
}

func parse(t *testing.T, text string) []object {
	t.Helper()
	var objects []object
	for _, document := range strings.Split("\n"+text, "\n---") {
		o := object{}
		if err := yaml.UnmarshalStrict([]byte(document), &o); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
	return objects
}

// render gives the chart's objects with these settings.
func render(t *testing.T, settings ...string) []object {
	t.Helper()
	args := []string{"template", release, chart, "--namespace", namespace, "--kube-version", "1.30"}
	for _, setting := range settings {
		args = append(args, "--set", setting)
	}
	out, err := helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func ofKind(objects []object, kind string) []object {
	var found []object
	for _, o := range objects {
		if o.kind() == kind {
			found = append(found, o)
		}
	}
	return found
}

// kubectl asks the cluster, which is started when the first test needs it, with the chart in it.
func kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return run([]string{"KUBECONFIG=" + installed(t)}, "kubectl", args...)
}

// create has the API server take an object, with no field that it does not know.
func create(t *testing.T, o object, args ...string) error {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "object.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = kubectl(t, append([]string{"create", "--validate=strict", "-f", file}, args...)...)
	return err
}

func must(t *testing.T, out string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var kubeconfig = sync.OnceValues(func() (string, error) {
	if _, err := run(nil, filepath.Join(root, devcluster), "--name", cluster, "up", "--nodes", "simulated", "--addons", "gateway"); err != nil {
		return "", err
	}
	path, err := run(nil, filepath.Join(root, devcluster), "--name", cluster, "kubeconfig")
	return strings.TrimSpace(path), err
})

// install puts the chart into a namespace under the restricted Pod Security Standard.
var install = sync.OnceValue(func() error {
	config, err := kubeconfig()
	if err != nil {
		return err
	}
	env := []string{"KUBECONFIG=" + config}
	helm, err := helmPath()
	if err != nil {
		return err
	}
	if _, err := run(env, "kubectl", "get", "namespace", namespace); err != nil {
		_, errCreate := run(env, "kubectl", "create", "namespace", namespace)
		_, errLabel := run(env, "kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
		if err := errors.Join(errCreate, errLabel); err != nil {
			return err
		}
	}
	_, err = run(env, helm, "upgrade", "--install", release, chart, "--namespace", namespace, "--wait", "--timeout", "2m")
	return err
})

func installed(t *testing.T) string {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	config, _ := kubeconfig()
	return config
}

func TestMain(m *testing.M) {
	code := m.Run()
	if _, err := run(nil, filepath.Join(root, devcluster), "--name", cluster, "down"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
