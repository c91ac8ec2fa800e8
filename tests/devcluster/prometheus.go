// The add-on `prometheus`: Debian's Prometheus beside the node. It scrapes the pods that ask for it by
// annotations, and answers pods as http://prometheus.monitoring.svc:9090. Debian builds it without discovery
// in Kubernetes, so that it asks the component `prometheus-targets`, which is this program, for the pods.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	prometheusAddon     = "prometheus"
	prometheusNamespace = "monitoring"
	prometheusPort      = 9090
	targetsAddress      = "127.0.0.1:9091"
)

func prometheusArgs(c *Cluster) []string {
	return []string{"--config.file=" + c.prometheusConfig(), fmt.Sprintf("--web.listen-address=%s:%d", c.nodeIP(), prometheusPort),
		"--storage.tsdb.path=" + c.path("prometheus"), "--storage.tsdb.retention.time=1h"}
}

func (c *Cluster) prometheusConfig() string { return c.path("config", "prometheus.yaml") }

// unpackPrometheus takes the program alone: the package would bring a service, and more packages for its pages.
func unpackPrometheus(p program, dir string) error {
	return unpackPackage("prometheus", "usr/bin/prometheus", filepath.Join(dir, p.name))
}

// writePrometheusConfig lets a Prometheus that runs read what has changed, by a further add-on for example.
func (c *Cluster) writePrometheusConfig() error {
	text, err := c.render("prometheus.yaml")
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(c.prometheusConfig()); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := writeFile(c.prometheusConfig(), text, 0o644); err != nil {
		return err
	}
	if c.pid("prometheus") == 0 {
		return nil
	}
	return c.signal("prometheus", syscall.SIGHUP)
}

// scraped is what is read of a pod in order to scrape it.
type scraped struct {
	Metadata struct {
		Name, Namespace     string
		Labels, Annotations map[string]string
	}
	Status struct{ Phase, PodIP string }
}

// targetGroup is what Prometheus expects in the answers of http_sd_configs.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// target gives the group of a pod, if it wants to be scraped and can be. Pods that have ended keep an
// address that may be another's by now.
func (p scraped) target() (targetGroup, bool) {
	wanted := p.Metadata.Annotations["prometheus.io/scrape"] == "true"
	port := p.Metadata.Annotations["prometheus.io/port"]
	if !wanted || port == "" || p.Status.PodIP == "" || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return targetGroup{}, false
	}
	labels := map[string]string{"namespace": p.Metadata.Namespace, "pod": p.Metadata.Name}
	if path := p.Metadata.Annotations["prometheus.io/path"]; path != "" {
		labels["__metrics_path__"] = path
	}
	if revision := p.Metadata.Labels["servicerelease.io/revision"]; revision != "" {
		labels["revision"] = revision
	}
	return targetGroup{[]string{net.JoinHostPort(p.Status.PodIP, port)}, labels}, true
}

// serveTargets runs inside the namespace and answers every request with the pods to scrape. Without an API
// server it answers an error, and Prometheus goes on with the pods that it knows.
func serveTargets(name string) error {
	c, err := existing(name)
	if err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	return http.ListenAndServe(targetsAddress, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var pods struct{ Items []scraped }
		// Of the API server's memory, without asking etcd.
		if err := api.get("/api/v1/pods?resourceVersion=0", &pods); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		groups := []targetGroup{}
		for _, pod := range pods.Items {
			if group, ok := pod.target(); ok {
				groups = append(groups, group)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(groups)
	}))
}

func (c *Cluster) applyPrometheusService() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	if err := api.apply("/api/v1/namespaces/"+prometheusNamespace,
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, prometheusNamespace)); err != nil {
		return err
	}
	port := fmt.Sprintf(`{"name":"http","port":%d}`, prometheusPort)
	return c.applyService(prometheusNamespace, "prometheus", "", port, port)
}

// queries waits until Prometheus is ready, by the path that pods take: its Service.
func (c *Cluster) queries() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	return c.waitFor("Prometheus to be ready", 60*time.Second, []string{"prometheus", "kube-proxy"}, func() error {
		var service struct{ Spec struct{ ClusterIP string } }
		if err := api.get("/api/v1/namespaces/"+prometheusNamespace+"/services/prometheus", &service); err != nil {
			return err
		}
		response, err := client.Get(fmt.Sprintf("http://%s:%d/-/ready", service.Spec.ClusterIP, prometheusPort))
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", response.Status)
		}
		return nil
	})
}
