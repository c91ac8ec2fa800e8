// What must hold before a cluster counts as ready, and the objects that the cluster itself needs.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

const probePod = "/api/v1/namespaces/kube-system/pods/devcluster-probe"

func (c *Cluster) verify(started []string) error {
	if err := c.awaitAPI(); err != nil {
		return err
	}
	if c.simulated() {
		if err := c.simulateNodes(); err != nil || len(started) == 0 {
			return err
		}
		return c.runsPods()
	}
	if err := c.awaitNode(c.nodeName(), []string{"kubelet", "containerd", "kube-controller-manager"}); err != nil {
		return err
	}
	if len(started) == 0 {
		return c.resolves()
	}
	if err := c.runsPods(); err != nil {
		return err
	}
	if err := c.resolves(); err != nil {
		return err
	}
	if c.hasAddon("metrics-server") {
		if err := c.measures(); err != nil {
			return err
		}
	}
	if c.hasAddon(gatewayAddon) {
		if err := c.programmed("edge", "traefik"); err != nil {
			return err
		}
	}
	if c.hasAddon(contourAddon) {
		if err := c.programmed(envoyGateway, "contour", "envoy"); err != nil {
			return err
		}
	}
	if c.hasAddon(prometheusAddon) {
		return c.queries()
	}
	return nil
}

type node struct {
	Status struct {
		Conditions []struct{ Type, Status, Message string }
	}
}

func (c *Cluster) awaitNode(name string, on []string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return c.waitFor("node "+name+" to be ready", 90*time.Second, on, func() error {
		var found node
		if err := api.get("/api/v1/nodes/"+name, &found); err != nil {
			return err
		}
		for _, condition := range found.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return nil
			} else if condition.Type == "Ready" {
				return errors.New(condition.Message)
			}
		}
		return errors.New("no Ready condition yet")
	})
}

// runsPods runs one pod to the point where it is ready, and removes it.
func (c *Cluster) runsPods() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	_ = api.remove(probePod) // of a start that was interrupted
	manifest := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"devcluster-probe","namespace":"kube-system"},"spec":{` +
		`"automountServiceAccountToken":false,"terminationGracePeriodSeconds":0,"containers":[{"name":"pause",` +
		`"image":"localhost/pause:devcluster","imagePullPolicy":"Never"}]}}`
	on := []string{"kube-scheduler", "kube-controller-manager", "kubelet", "containerd", "kube-proxy"}
	if c.simulated() {
		on = []string{"kube-scheduler", "kube-controller-manager", "kwok"}
	}
	err = c.waitFor("a first pod to be accepted", 60*time.Second, on, func() error {
		_, err := api.do(http.MethodPost, "/api/v1/namespaces/kube-system/pods", "application/json", []byte(manifest))
		return err
	})
	if err != nil {
		return err
	}
	err = c.waitFor("a first pod to be ready", 90*time.Second, on, func() error {
		var pod node // has the same shape of conditions
		if err := api.get(probePod, &pod); err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", pod.Status.Conditions)
	})
	if err != nil {
		return err
	}
	return api.remove(probePod)
}

// resolves asks for a name by the path that pods take: the name service's cluster address.
func (c *Cluster) resolves() error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.dnsIP()+":53")
	}}
	return c.waitFor("cluster names to resolve", 60*time.Second, []string{"coredns", "kube-proxy"}, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		found, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		if err == nil && (len(found) != 1 || found[0] != c.kubernetesIP()) {
			err = fmt.Errorf("kubernetes.default resolves to %v", found)
		}
		return err
	})
}

func (c *Cluster) measures() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return c.waitFor("the metrics API to answer", 90*time.Second, []string{"metrics-server", "kubelet"}, func() error {
		return api.get("/apis/metrics.k8s.io/v1beta1/nodes/"+c.nodeName(), nil)
	})
}

func (c *Cluster) simulateNodes() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	var name string
	for i := range c.NodeCount {
		name = fmt.Sprintf("simulated-%04d", i)
		if api.get("/api/v1/nodes/"+name, nil) == nil {
			continue
		}
		manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q,"annotations":{"kwok.x-k8s.io/node":"fake"},`+
			`"labels":{"type":"kwok","kubernetes.io/os":"linux","kubernetes.io/arch":"amd64","kubernetes.io/hostname":%q}}}`, name, name)
		if err := api.apply("/api/v1/nodes/"+name, manifest); err != nil {
			return err
		}
	}
	return c.awaitNode(name, []string{"kwok", "kube-controller-manager", "kube-scheduler"})
}

// releaseNodes drops the leases of a KWOK that was killed, which its successor would let expire
// before it touches a node or pod.
func (c *Cluster) releaseNodes() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return api.remove("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
}

// applyNameService gives CoreDNS, a process beside the node, the Service that pods know.
func (c *Cluster) applyNameService() error {
	return c.applyService("kube-system", "kube-dns", `"clusterIP":"`+c.dnsIP()+`",`,
		`{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53,"protocol":"TCP"}`,
		`{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53,"protocol":"TCP"}`)
}

// applyService makes a Service without selector whose only endpoint is the node.
func (c *Cluster) applyService(namespace, name, extra, servicePorts, endpointPorts string) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	service := fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":%q,"namespace":%q},"spec":{%s"ports":[%s]}}`,
		name, namespace, extra, servicePorts)
	slice := fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"%[1]s-devcluster","namespace":%[4]q,`+
		`"labels":{"kubernetes.io/service-name":%[1]q}},"addressType":"IPv4","endpoints":[{"addresses":[%[2]q],"conditions":{"ready":true}}],"ports":[%[3]s]}`,
		name, c.nodeIP(), endpointPorts, namespace)
	return c.waitFor("Service "+name+" to be accepted", 30*time.Second, []string{"kube-apiserver"}, func() error {
		if err := api.apply("/api/v1/namespaces/"+namespace+"/services/"+name, service); err != nil {
			return err
		}
		return api.apply("/apis/discovery.k8s.io/v1/namespaces/"+namespace+"/endpointslices/"+name+"-devcluster", slice)
	})
}

func (c *Cluster) applyMetricsService() error {
	if err := c.applyService("kube-system", "metrics-server", "", `{"name":"https","port":443,"targetPort":4443}`, `{"name":"https","port":4443}`); err != nil {
		return err
	}
	authority, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	return api.apply("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", fmt.Sprintf(
		`{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1beta1.metrics.k8s.io"},"spec":{`+
			`"group":"metrics.k8s.io","version":"v1beta1","groupPriorityMinimum":100,"versionPriority":100,`+
			`"service":{"name":"metrics-server","namespace":"kube-system"},"caBundle":%q}}`,
		base64.StdEncoding.EncodeToString(authority)))
}
