// `down`: ends a cluster and leaves nothing of it: processes, shims, mounts, control groups,
// network, links to logs, files. Works on whatever is left of a damaged one.
package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func down(name, kubeconfig string) error {
	c, err := load(name)
	if errors.Is(err, fs.ErrNotExist) {
		say("there is no cluster %s", name)
		return nil
	} else if err != nil {
		return err
	}
	if err := requireTools(networkTools); err != nil {
		return err
	}
	unlock, err := lockDirectory(c.path())
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.destroy(); err != nil {
		return err
	}
	if err := removePublished(kubeconfig, c.server()); err != nil {
		return err
	}
	say("cluster %s is gone", name)
	return nil
}

func (c *Cluster) destroy() error {
	if err := c.killMembers(); err != nil {
		return err
	}
	for _, part := range components { // also those that could not join the group
		if err := c.stopProcess(part.name, 0); err != nil {
			return err
		}
	}
	c.removeShimSockets()
	steps := []func() error{
		c.removeNetwork,
		func() error { return unmountBelow(c.path()) },
		c.removeGroups,
		c.removeOutside,
		func() error { return os.RemoveAll(c.path()) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// removeShimSockets removes the sockets of shims that were killed, which containerd keeps in a
// directory of its own choice.
func (c *Cluster) removeShimSockets() {
	addresses, _ := filepath.Glob(c.path("containerd", "run", "io.containerd.runtime.v2.task", "*", "*", "address"))
	for _, file := range addresses {
		if data, err := os.ReadFile(file); err == nil {
			os.Remove(strings.TrimPrefix(strings.TrimSpace(string(data)), "unix://"))
		}
	}
	os.Remove("/run/containerd/s") // only if empty: another containerd may use it
	os.Remove("/run/containerd")
}

// removeOutside removes what components insist on keeping elsewhere: the kubelet's links to
// container logs, its socket for device plugins, and the results of CNI plugins.
func (c *Cluster) removeOutside() error {
	links, _ := filepath.Glob("/var/log/containers/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, c.path()+"/") {
			if err := os.Remove(link); err != nil {
				return err
			}
		}
	}
	results, _ := filepath.Glob("/var/lib/cni/results/*")
	for _, result := range results {
		// Those of the loopback devices do not have the cluster's name, but its path.
		if data, err := os.ReadFile(result); err == nil && strings.Contains(string(data), c.path()+"/") {
			if err := os.Remove(result); err != nil {
				return err
			}
		}
	}
	if !c.simulated() && c.lastReal() {
		os.Remove("/var/lib/kubelet/device-plugins/kubelet.sock")
		os.Remove("/var/lib/kubelet/device-plugins/DEPRECATION")
		os.Remove("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")
	}
	for _, dir := range []string{"/var/log/containers", "/var/lib/cni/results", "/var/lib/cni",
		"/var/lib/kubelet/device-plugins", "/var/lib/kubelet"} {
		os.Remove(dir) // only if empty
	}
	return nil
}

// lastReal says that no kubelet but this cluster's may use the shared directories.
func (c *Cluster) lastReal() bool {
	for _, other := range allClusters() {
		if other.Name != c.Name && !other.simulated() {
			return false
		}
	}
	_, err := os.Stat("/var/lib/kubelet/config.yaml") // of a kubelet that the machine itself runs
	return err != nil
}

// removePublished removes this tree's copy of the kubeconfig, if it is of that cluster.
func removePublished(place, server string) error {
	data, err := os.ReadFile(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if !strings.Contains(string(data), "server: "+server+"\n") {
		return nil
	}
	if err := os.Remove(place); err != nil {
		return err
	}
	for dir := filepath.Dir(place); strings.Contains(dir, ".devcluster"); dir = filepath.Dir(dir) {
		os.Remove(dir) // only if empty
	}
	return nil
}
