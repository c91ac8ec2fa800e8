// `up`: makes what is missing of a cluster, starts what does not run, and returns when a pod can
// run on it. Called on a healthy cluster it only looks; on a damaged one it heals.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// request is what the caller asked for; empty fields leave an existing cluster as it is.
type request struct {
	name      string
	nodes     string
	nodeCount int
	addons    []string
	audit     bool
	output    string // where to put the kubeconfig
}

func up(want request) error {
	begin := time.Now()
	if err := requireTools(networkTools); err != nil {
		return err
	}
	if len(stateDir(want.name)) > longestStatePath {
		return fmt.Errorf("%s is too long for the sockets in it; set DEVCLUSTER_STATE to a shorter directory", stateDir(want.name))
	}
	c, unlock, err := open(want)
	if err != nil {
		return err
	}
	defer unlock()
	if !c.simulated() {
		if err := requireTools(nodeTools); err != nil {
			return err
		}
	}
	dirs, err := ensurePrograms(c.programsNeeded()...)
	if err != nil {
		return err
	}
	started, err := c.bringUp(dirs)
	if err != nil {
		return err
	}
	if err := c.publish(want.output); err != nil {
		return err
	}
	if len(started) == 0 {
		say("cluster %s is running (%s nodes)", c.Name, c.Nodes)
	} else {
		say("cluster %s is ready after %s (%s nodes; started %v)", c.Name, time.Since(begin).Round(100*time.Millisecond), c.Nodes, started)
	}
	fmt.Printf("export KUBECONFIG=%s\n", want.output)
	return nil
}

// open finds the cluster or claims a place for a new one, and locks it.
func open(want request) (*Cluster, func(), error) {
	if !clusterName.MatchString(want.name) {
		_, err := load(want.name)
		return nil, nil, err
	}
	unlock, err := lockDirectory(stateDir(want.name))
	if err != nil {
		return nil, nil, err
	}
	c, err := load(want.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c, err = newCluster(want)
	case err == nil:
		err = c.adopt(want)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

func newCluster(want request) (*Cluster, error) {
	c := &Cluster{Name: want.name, Nodes: want.nodes, NodeCount: want.nodeCount, Addons: want.addons, Audit: want.audit}
	if c.Nodes == "" {
		c.Nodes = realNodes
	}
	if c.simulated() && c.NodeCount == 0 {
		c.NodeCount = 10
	}
	return c, claim(c)
}

// adopt takes over what can change in a running cluster, and refuses what cannot.
func (c *Cluster) adopt(want request) error {
	if want.nodes != "" && want.nodes != c.Nodes {
		return fmt.Errorf("cluster %s exists with %s nodes; choose another NAME, or `make cluster-down NAME=%s` first", c.Name, c.Nodes, c.Name)
	}
	if want.audit && !c.Audit {
		return fmt.Errorf("cluster %s runs without an audit log; `make cluster-down NAME=%s` first", c.Name, c.Name)
	}
	if c.simulated() && want.nodeCount > c.NodeCount {
		c.NodeCount = want.nodeCount
	}
	for _, addon := range want.addons {
		if !c.hasAddon(addon) {
			c.Addons = append(c.Addons, addon)
		}
	}
	return c.save()
}

// bringUp starts and verifies, and once more if a component ended meanwhile: some end by
// themselves when another one that they need was away.
func (c *Cluster) bringUp(dirs map[string]string) ([]string, error) {
	started, err := c.start(dirs)
	if err == nil {
		err = c.verify(started)
	}
	if err == nil || len(c.ended()) == 0 {
		return started, err
	}
	say("%v; starting what has ended once more", err)
	again, err := c.start(dirs)
	if err != nil {
		return nil, err
	}
	started = append(started, again...)
	return started, c.verify(started)
}

func (c *Cluster) ended() []string {
	var names []string
	for _, part := range components {
		if c.wants(part) && c.pid(part.name) == 0 {
			names = append(names, part.name)
		}
	}
	return names
}

// start brings up what does not run, in order, and gives the names of what it started.
func (c *Cluster) start(dirs map[string]string) ([]string, error) {
	if err := c.ensureGroups(); err != nil {
		return nil, err
	}
	fresh, err := c.ensureNetwork()
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := c.endLeftovers(); err != nil {
			return nil, err
		}
	}
	if err := c.ensurePKI(); err != nil {
		return nil, err
	}
	if err := c.writeConfigs(); err != nil {
		return nil, err
	}
	if c.hasAddon(prometheusAddon) {
		if err := c.writePrometheusConfig(); err != nil {
			return nil, err
		}
	}
	if c.simulated() {
		if err := c.writeStages(filepath.Join(dirs["kwok"], "stages.yaml")); err != nil {
			return nil, err
		}
	}
	var started []string
	for _, part := range components {
		if !c.wants(part) {
			continue
		}
		program, err := part.executable(dirs)
		if err != nil {
			return started, err
		}
		args := part.args(c)
		if part.addon != "" {
			c.endIfOther(part.name, append([]string{program}, args...))
		}
		if c.running(part.name) {
			continue
		}
		if err := c.before(part.name, dirs); err != nil {
			return started, err
		}
		if err := c.spawn(part.name, program, args); err != nil {
			return started, err
		}
		started = append(started, part.name)
		if err := c.after(part.name, dirs); err != nil {
			return started, err
		}
	}
	if c.simulated() && c.hasAddon(gatewayAddon) {
		return started, c.applyGatewayAPI(dirs["gateway-api"])
	}
	return started, nil
}

// running says whether a component lives, and continues it if it is stopped.
func (c *Cluster) running(name string) bool {
	pid := c.pid(name)
	if pid == 0 {
		return false
	}
	if _, state := startTime(pid); state == 'T' {
		say("continuing %s, which was stopped", name)
		syscall.Kill(pid, syscall.SIGCONT)
	}
	return true
}

// endIfOther ends a component that was started by another command, by an older or newer version of this
// program, so that it is started anew.
func (c *Cluster) endIfOther(name string, command []string) {
	pid := c.pid(name)
	if pid == 0 {
		return
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || string(data) == strings.Join(command, "\x00")+"\x00" {
		return
	}
	say("starting %s anew: its command has changed", name)
	syscall.Kill(pid, syscall.SIGTERM)
	for begin := time.Now(); c.pid(name) != 0 && time.Since(begin) < 10*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
}

// endLeftovers ends what ran in a namespace that is gone: its containers have lost their network
// for good, and the kubelet makes new ones when it finds them ended.
func (c *Cluster) endLeftovers() error {
	if err := c.killMembers(); err != nil {
		return err
	}
	c.removeShimSockets()
	if err := unmountBelow(c.path("containerd", "run")); err != nil {
		return err
	}
	for _, dir := range []string{c.path("containerd", "run"), c.path("runc"), c.path("ipam")} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// before makes sure of what a component needs in order to start at all.
func (c *Cluster) before(name string, dirs map[string]string) error {
	switch name {
	case "kube-apiserver", "etcd", "containerd":
		return nil
	}
	if err := c.awaitAPI(); err != nil {
		return err
	}
	switch name {
	case "kwok":
		return c.releaseNodes()
	case "traefik":
		if err := c.applyGatewayAPI(dirs["gateway-api"]); err != nil {
			return err
		}
		api, err := c.api()
		if err != nil {
			return err
		}
		return api.applyCRDs(dirs["traefik"])
	case "contour":
		if err := c.applyGatewayAPI(dirs["gateway-api"]); err != nil {
			return err
		}
		return c.applyContour(dirs["contour"])
	case "envoy":
		return c.writeEnvoyConfig(filepath.Join(dirs["contour"], "contour"))
	}
	return nil
}

func (c *Cluster) after(name string, dirs map[string]string) error {
	switch name {
	case "containerd":
		return c.ensurePauseImage(dirs["pause"])
	case "kube-apiserver":
		return c.awaitAPI()
	case "coredns":
		return c.applyNameService()
	case "metrics-server":
		return c.applyMetricsService()
	case "traefik":
		return c.applyGateway("traefik", "traefik.io/gateway-controller", "edge", gatewayPort)
	case "prometheus":
		return c.applyPrometheusService()
	}
	return nil
}

func (c *Cluster) awaitAPI() error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return c.waitFor("the API server to be ready", 90*time.Second, []string{"kube-apiserver", "etcd"}, func() error {
		return api.get("/readyz", nil)
	})
}

// waitFor polls until the check succeeds. It gives up at once if a component that it depends on
// has ended, and shows the end of their logs.
func (c *Cluster) waitFor(what string, limit time.Duration, on []string, check func() error) error {
	deadline := time.Now().Add(limit)
	reported := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return nil
		}
		for _, name := range on {
			if c.pid(name) == 0 {
				return fmt.Errorf("waiting for %s: %s has ended\n%s", what, name, c.logTail(name, 15))
			}
		}
		if time.Now().After(deadline) {
			text := fmt.Sprintf("waited %s in vain for %s: %v", limit, what, err)
			for _, name := range on {
				text += "\n" + c.logTail(name, 15)
			}
			return errors.New(text)
		}
		if time.Now().After(reported) {
			say("  still waiting for %s", what)
			reported = time.Now().Add(10 * time.Second)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// publish writes the administrator's kubeconfig where the caller wants it.
func (c *Cluster) publish(place string) error {
	return copyFile(c.kubeconfigOf("admin"), place)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && string(old) == string(data) {
		return nil
	}
	return writeFile(to, data, 0o600)
}
