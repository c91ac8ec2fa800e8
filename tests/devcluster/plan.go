// What a cluster is: its name, settings, directories and addresses. Clusters of one machine
// share nothing but the index that divides 198.18.0.0/15 among them.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

const (
	maxClusters      = 8
	realNodes        = "real"
	simulatedNodes   = "simulated"
	longestStatePath = 70 // Unix socket paths end at 107 bytes
)

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Cluster is what is kept in cluster.json of the state directory.
type Cluster struct {
	Name      string   `json:"name"`
	Index     int      `json:"index"`
	Nodes     string   `json:"nodes"`
	NodeCount int      `json:"nodeCount,omitempty"`
	Addons    []string `json:"addons,omitempty"`
	Audit     bool     `json:"audit,omitempty"`
}

func stateHome() string {
	if home := os.Getenv("DEVCLUSTER_STATE"); home != "" {
		return home
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		base = "/var/lib"
	}
	return filepath.Join(base, "service-release-operator", "devcluster")
}

func stateDir(name string) string { return filepath.Join(stateHome(), name) }

func (c *Cluster) path(parts ...string) string {
	return filepath.Join(append([]string{stateDir(c.Name)}, parts...)...)
}

// address gives the n-th address of the cluster's own 16,384.
func (c *Cluster) address(n int) string {
	value := 198<<24 | 18<<16 + c.Index<<14 + n
	return fmt.Sprintf("%d.%d.%d.%d", value>>24&255, value>>16&255, value>>8&255, value&255)
}

func (c *Cluster) nodeIP() string      { return c.address(1) }
func (c *Cluster) hostIP() string      { return c.address(256 + 1) }
func (c *Cluster) serverIP() string    { return c.address(256 + 2) }
func (c *Cluster) serviceCIDR() string { return c.address(4096) + "/20" }
func (c *Cluster) kubernetesIP() string {
	return c.address(4096 + 1)
}
func (c *Cluster) dnsIP() string    { return c.address(4096 + 10) }
func (c *Cluster) podCIDR() string  { return c.address(8192) + "/19" }
func (c *Cluster) nodeName() string { return "devcluster-" + c.Name }
func (c *Cluster) veth() string     { return fmt.Sprintf("devcluster%d", c.Index) }
func (c *Cluster) netns() string    { return c.path("netns") }
func (c *Cluster) simulated() bool  { return c.Nodes == simulatedNodes }
func (c *Cluster) server() string   { return "https://" + c.serverIP() + ":6443" }

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.path("cluster.json"), append(data, '\n'), 0o644)
}

// load reads an existing cluster; fs.ErrNotExist says that there is none of that name.
func load(name string) (*Cluster, error) {
	if !clusterName.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: use 1 to 20 lower-case letters, digits and dashes", name)
	}
	data, err := os.ReadFile(filepath.Join(stateDir(name), "cluster.json"))
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w; run `make cluster-down NAME=%s`", stateDir(name), err, name)
	}
	return c, nil
}

// existing is load for commands that need a cluster.
func existing(name string) (*Cluster, error) {
	c, err := load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster %q; `make cluster NAME=%s` starts one", name, name)
	}
	return c, err
}

func allClusters() []*Cluster {
	entries, err := os.ReadDir(stateHome())
	if err != nil {
		return nil
	}
	var found []*Cluster
	for _, entry := range entries {
		if c, err := load(entry.Name()); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// claim gives a new cluster the lowest free index, under the lock of the state directory.
func claim(c *Cluster) error {
	unlock, err := lockDirectory(stateHome())
	if err != nil {
		return err
	}
	defer unlock()
	taken := map[int]string{}
	for _, other := range allClusters() {
		taken[other.Index] = other.Name
	}
	for c.Index = 0; c.Index < maxClusters; c.Index++ {
		if _, used := taken[c.Index]; !used {
			return c.save()
		}
	}
	return fmt.Errorf("all %d address ranges are in use by %v; end one with `make cluster-down NAME=...`", maxClusters, taken)
}

// lockDirectory holds an exclusive lock on a directory, made if need be. The lock goes with the
// directory: who waited for one that was removed meanwhile, begins again with the new one.
func lockDirectory(path string) (func(), error) {
	for {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		dir, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			fmt.Fprintf(os.Stderr, "waiting for another command that works on %s\n", path)
			if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
				dir.Close()
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
		}
		held, heldErr := dir.Stat()
		current, err := os.Stat(path)
		if heldErr == nil && err == nil && os.SameFile(held, current) {
			return func() { dir.Close() }, nil
		}
		dir.Close()
	}
}

// writeFile replaces a file in one step, so that a reader never sees half of it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
