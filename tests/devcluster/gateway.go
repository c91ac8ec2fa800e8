// The add-on `gateway`: the Gateway API, and on real nodes Traefik as its data plane, with a Gateway
// `edge` in the namespace `gateway` to which routes of all namespaces may attach.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	gatewayAddon = "gateway"
	gatewayPort  = 8000
)

func traefikArgs(c *Cluster) []string {
	return []string{
		fmt.Sprintf("--entrypoints.web.address=:%d", gatewayPort), fmt.Sprintf("--entrypoints.metrics.address=%s:8082", c.nodeIP()),
		"--providers.kubernetesgateway=true", "--providers.kubernetesgateway.statusaddress.ip=" + c.nodeIP(),
		"--metrics.prometheus=true", "--metrics.prometheus.entrypoint=metrics", "--metrics.prometheus.addserviceslabels=true",
		"--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=INFO", "--log.nocolor=true",
	}
}

// copyGatewayCRDs puts the CRDs of the standard channel beside the program.
func copyGatewayCRDs(p program, dir string) error {
	source, err := sourceDir()
	if err != nil {
		return err
	}
	module := filepath.Join(source, p.module)
	download := exec.Command("go", "mod", "download")
	download.Dir = module
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("download the Gateway API: %w\n%s", err, out)
	}
	from, err := moduleDir(module, "sigs.k8s.io/gateway-api")
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "config", "crd", "standard", "*_*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("the Gateway API has no CRDs in %s", from)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// applyGatewayAPI installs the CRDs from dir, and waits until they are served.
func (c *Cluster) applyGatewayAPI(dir string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		// GROUP_PLURAL.yaml
		group, plural, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "_")
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + plural + "." + group
		if api.get(path, nil) == nil {
			continue
		}
		manifest, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := api.apply(path, string(manifest)); err != nil {
			return err
		}
	}
	return c.waitFor("the Gateway API to be served", 60*time.Second, []string{"kube-apiserver"}, func() error {
		return api.get("/apis/gateway.networking.k8s.io/v1/httproutes?limit=1", nil)
	})
}

// applyGateway makes the GatewayClass and the Gateway that Traefik serves.
func (c *Cluster) applyGateway() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	const group = "/apis/gateway.networking.k8s.io/v1"
	for _, object := range []struct{ path, manifest string }{
		{"/api/v1/namespaces/gateway", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"gateway"}}`},
		{group + "/gatewayclasses/traefik", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"traefik"},` +
			`"spec":{"controllerName":"traefik.io/gateway-controller"}}`},
		{group + "/namespaces/gateway/gateways/edge", fmt.Sprintf(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway",`+
			`"metadata":{"name":"edge","namespace":"gateway"},"spec":{"gatewayClassName":"traefik","listeners":[`+
			`{"name":"web","protocol":"HTTP","port":%d,"allowedRoutes":{"namespaces":{"from":"All"}}}]}}`, gatewayPort)},
	} {
		if err := api.apply(object.path, object.manifest); err != nil {
			return err
		}
	}
	return nil
}

// routes says whether the Gateway is programmed, and answers: 404, as long as there is no route.
func (c *Cluster) routes() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Second}
	return c.waitFor("Gateway edge to be programmed", 60*time.Second, []string{"traefik"}, func() error {
		var gateway node // has the same shape of conditions
		if err := api.get("/apis/gateway.networking.k8s.io/v1/namespaces/gateway/gateways/edge", &gateway); err != nil {
			return err
		}
		for _, condition := range gateway.Status.Conditions {
			if condition.Type == "Programmed" && condition.Status == "True" {
				response, err := client.Get(fmt.Sprintf("http://%s:%d/", c.nodeIP(), gatewayPort))
				if err != nil {
					return err
				}
				return response.Body.Close()
			}
		}
		return fmt.Errorf("conditions %v", gateway.Status.Conditions)
	})
}
