// The parts of a cluster: how each is called, in which order they start, and how each says that
// it is ready. The flags are the defaults of the components but for what a cluster on one
// machine needs, so that endpoints and leases behave as they do in production.
package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// addons are what a cluster may have beside its own parts.
var addons = []string{"metrics-server", gatewayAddon, contourAddon, prometheusAddon}

//go:embed config/*
var configs embed.FS

// itself is the program of components that this one is, under a command of its own.
const itself = "devcluster"

type component struct {
	name    string
	program string // the build that has it, or `itself`; none: a program of the system
	nodes   string // realNodes, simulatedNodes, or both when empty
	addon   string // runs only with this add-on
	args    func(c *Cluster) []string
}

// components are in the order of their start. The API server waits for etcd by itself.
var components = []component{
	{name: "etcd", program: "kubernetes", args: etcdArgs},
	{name: "containerd", nodes: realNodes, args: func(c *Cluster) []string {
		return []string{"--config", c.path("config", "containerd.toml")}
	}},
	{name: "kube-apiserver", program: "kubernetes", args: apiserverArgs},
	{name: "kube-controller-manager", program: "kubernetes", args: controllerArgs},
	{name: "kube-scheduler", program: "kubernetes", args: func(c *Cluster) []string {
		return []string{"--kubeconfig=" + c.kubeconfigOf("kube-scheduler"), "--leader-elect=false"}
	}},
	{name: "kubelet", program: "kubernetes", nodes: realNodes, args: kubeletArgs},
	{name: "kube-proxy", program: "kubernetes", nodes: realNodes, args: func(c *Cluster) []string {
		return []string{"--kubeconfig=" + c.kubeconfigOf("kube-proxy"), "--proxy-mode=iptables", "--cluster-cidr=" + c.podCIDR(),
			"--hostname-override=" + c.nodeName(), "--conntrack-max-per-core=0"}
	}},
	{name: "coredns", program: "coredns", nodes: realNodes, args: func(c *Cluster) []string {
		return []string{"-conf", c.path("config", "Corefile")}
	}},
	{name: "kwok", program: "kwok", nodes: simulatedNodes, args: kwokArgs},
	{name: "metrics-server", program: "metrics-server", nodes: realNodes, addon: "metrics-server", args: metricsServerArgs},
	{name: "traefik", program: "traefik", nodes: realNodes, addon: gatewayAddon, args: traefikArgs},
	{name: "contour", program: "contour", nodes: realNodes, addon: contourAddon, args: contourArgs},
	{name: "envoy", program: "envoy", nodes: realNodes, addon: contourAddon, args: envoyArgs},
	{name: "prometheus-targets", program: itself, nodes: realNodes, addon: prometheusAddon, args: func(c *Cluster) []string {
		return []string{targetsCommand, c.Name}
	}},
	{name: "prometheus", program: "prometheus", nodes: realNodes, addon: prometheusAddon, args: prometheusArgs},
}

func (c *Cluster) wants(part component) bool {
	if part.nodes != "" && part.nodes != c.Nodes {
		return false
	}
	return part.addon == "" || c.hasAddon(part.addon)
}

func (c *Cluster) hasAddon(name string) bool {
	for _, addon := range c.Addons {
		if addon == name {
			return true
		}
	}
	return false
}

func findComponent(c *Cluster, name string) (component, error) {
	var names []string
	for _, part := range components {
		if part.name == name && c.wants(part) {
			return part, nil
		}
		if c.wants(part) {
			names = append(names, part.name)
		}
	}
	return component{}, fmt.Errorf("cluster %s has no component %q; it has %v", c.Name, name, names)
}

func etcdArgs(c *Cluster) []string {
	return []string{"--data-dir=" + c.path("etcd"), "--unsafe-no-fsync", "--quota-backend-bytes=4294967296",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn"}
}

func apiserverArgs(c *Cluster) []string {
	args := []string{
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--secure-port=6443",
		"--advertise-address=" + c.nodeIP(), "--service-cluster-ip-range=" + c.serviceCIDR(),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--client-ca-file=" + c.pki("ca.crt"), "--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("service-accounts.pub"), "--service-account-signing-key-file=" + c.pki("service-accounts.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"), "--kubelet-client-certificate=" + c.pki("kubelet-client.crt"),
		"--kubelet-client-key=" + c.pki("kubelet-client.key"), "--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.pki("front-proxy.crt"), "--proxy-client-key-file=" + c.pki("front-proxy.key"),
	}
	if c.Audit {
		args = append(args, "--audit-policy-file="+c.path("config", "audit.yaml"), "--audit-log-path="+c.path("logs", "audit.json"))
	}
	return args
}

func controllerArgs(c *Cluster) []string {
	args := []string{"--kubeconfig=" + c.kubeconfigOf("kube-controller-manager"), "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file=" + c.pki("service-accounts.key"),
		"--root-ca-file=" + c.pki("ca.crt"),
		"--authentication-kubeconfig=" + c.kubeconfigOf("kube-controller-manager"),
		"--authorization-kubeconfig=" + c.kubeconfigOf("kube-controller-manager")}
	if c.Nodes == simulatedNodes {
		// The default of 20 requests a second would be what tests at scale measure.
		args = append(args, "--kube-api-qps=500", "--kube-api-burst=1000")
	}
	return args
}

func kubeletArgs(c *Cluster) []string {
	return []string{"--config=" + c.path("config", "kubelet.yaml"), "--kubeconfig=" + c.kubeconfigOf("kubelet"),
		"--root-dir=" + c.path("kubelet"), "--cert-dir=" + c.path("kubelet", "pki"),
		"--node-ip=" + c.nodeIP(), "--hostname-override=" + c.nodeName()}
}

func kwokArgs(c *Cluster) []string {
	// The addresses of simulated pods are only ever text, so that clusters need not share them out.
	return []string{"--kubeconfig=" + c.kubeconfigOf("kwok"), "--manage-all-nodes=true", "--cidr=198.18.0.0/15",
		"--node-ip=" + c.nodeIP(), "--node-lease-duration-seconds=40", "--config=" + c.path("config", "stages.yaml"),
		"--server-address=127.0.0.1:10247", "--v=WARN"}
}

func metricsServerArgs(c *Cluster) []string {
	kubeconfig := c.kubeconfigOf("metrics-server")
	return []string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=" + c.nodeIP(), "--secure-port=4443", "--tls-cert-file=" + c.pki("metrics-server.crt"),
		"--tls-private-key-file=" + c.pki("metrics-server.key"), "--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s", "--kubelet-request-timeout=5s"}
}

// configValues is what the files under config/ may refer to.
type configValues struct{ c *Cluster }

func (v configValues) Path(parts ...string) string { return v.c.path(parts...) }
func (v configValues) Name() string                { return v.c.Name }
func (v configValues) Group() string               { return v.c.group() }
func (v configValues) NodeIP() string              { return v.c.nodeIP() }
func (v configValues) DNSIP() string               { return v.c.dnsIP() }
func (v configValues) PodCIDR() string             { return v.c.podCIDR() }
func (v configValues) PKI(name string) string      { return v.c.pki(name) }
func (v configValues) TargetsAddress() string      { return targetsAddress }
func (v configValues) HasAddon(name string) bool   { return v.c.hasAddon(name) }

func (c *Cluster) render(name string) ([]byte, error) {
	parsed, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, configValues{c})
	return text.Bytes(), err
}

// writeConfigs puts the configuration of all components in the state directory.
func (c *Cluster) writeConfigs() error {
	places := map[string]string{
		"containerd.toml": c.path("config", "containerd.toml"),
		"kubelet.yaml":    c.path("config", "kubelet.yaml"),
		"Corefile":        c.path("config", "Corefile"),
		"audit.yaml":      c.path("config", "audit.yaml"),
		"contour.yaml":    c.path("config", "contour.yaml"),
		"resolv.conf":     c.path("resolv.conf"),
		"cni.conflist":    c.path("cni", "10-devcluster.conflist"),
	}
	for name, place := range places {
		text, err := c.render(name)
		if err != nil {
			return err
		}
		if err := writeFile(place, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeStages joins how simulated nodes and pods behave; these are templates of KWOK, not ours.
func (c *Cluster) writeStages(nodes string) error {
	all, err := os.ReadFile(nodes)
	if err != nil {
		return err
	}
	pods, err := configs.ReadFile("config/stages.yaml")
	if err != nil {
		return err
	}
	return writeFile(c.path("config", "stages.yaml"), append(append(all, "---\n"...), pods...), 0o644)
}

// programsNeeded names the builds that a cluster of this kind needs, each once.
func (c *Cluster) programsNeeded() []string {
	names, seen := []string{}, map[string]bool{}
	for _, part := range components {
		if part.program != "" && part.program != itself && c.wants(part) && !seen[part.program] {
			seen[part.program] = true
			names = append(names, part.program)
		}
	}
	if !c.simulated() {
		names = append(names, "pause")
	}
	if c.hasAddon(gatewayAddon) || c.hasAddon(contourAddon) {
		names = append(names, "gateway-api")
	}
	return names
}

func (p component) executable(dirs map[string]string) (string, error) {
	switch p.program {
	case "":
		return p.name, nil
	case itself:
		return os.Executable()
	}
	return filepath.Join(dirs[p.program], p.name), nil
}
