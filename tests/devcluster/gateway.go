// The add-on `gateway`: the Gateway API, and on real nodes Traefik as its data plane, with a Gateway
// `edge` in the namespace `gateway` to which routes of all namespaces may attach.
package main

import (
	"fmt"
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

// copyCRDs copies files named GROUP_PLURAL.yaml.
func copyCRDs(pattern, dir string) error {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("there are no CRDs %s", pattern)
	}
	for _, file := range files {
		if err := copyFile(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
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
	return copyCRDs(filepath.Join(from, "config", "crd", "standard", "*_*.yaml"), dir)
}

// applyGatewayAPI installs the CRDs from dir, and waits until they are served.
func (c *Cluster) applyGatewayAPI(dir string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	if err := api.applyCRDs(dir); err != nil {
		return err
	}
	return c.waitFor("the Gateway API to be served", 60*time.Second, []string{"kube-apiserver"}, func() error {
		return api.get("/apis/gateway.networking.k8s.io/v1/httproutes?limit=1", nil)
	})
}

// applyCRDs installs those of the files GROUP_PLURAL.yaml in dir that are not there yet.
func (a *apiClient) applyCRDs(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		group, plural, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "_")
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + plural + "." + group
		if a.get(path, nil) == nil {
			continue
		}
		manifest, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := a.apply(path, string(manifest)); err != nil {
			return err
		}
	}
	return nil
}

// applyGateway makes a GatewayClass and a Gateway of it with one listener, to which all namespaces may
// attach routes.
func (c *Cluster) applyGateway(class, controller, name string, port int) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	const group = "/apis/gateway.networking.k8s.io/v1"
	for _, object := range []struct{ path, manifest string }{
		{"/api/v1/namespaces/gateway", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"gateway"}}`},
		{group + "/gatewayclasses/" + class, fmt.Sprintf(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass",`+
			`"metadata":{"name":%q},"spec":{"controllerName":%q}}`, class, controller)},
		{group + "/namespaces/gateway/gateways/" + name, fmt.Sprintf(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway",`+
			`"metadata":{"name":%q,"namespace":"gateway"},"spec":{"gatewayClassName":%q,"listeners":[`+
			`{"name":"web","protocol":"HTTP","port":%d,"allowedRoutes":{"namespaces":{"from":"All"}}}]}}`, name, class, port)},
	} {
		if err := api.apply(object.path, object.manifest); err != nil {
			return err
		}
	}
	return nil
}

// programmed waits until a Gateway says that its data plane has it.
func (c *Cluster) programmed(name string, on ...string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return c.waitFor("Gateway "+name+" to be programmed", 60*time.Second, on, func() error {
		var gateway node // has the same shape of conditions
		if err := api.get("/apis/gateway.networking.k8s.io/v1/namespaces/gateway/gateways/"+name, &gateway); err != nil {
			return err
		}
		for _, condition := range gateway.Status.Conditions {
			if condition.Type == "Programmed" && condition.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", gateway.Status.Conditions)
	})
}
