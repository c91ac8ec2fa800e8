// The network of a cluster: a namespace kept by a file in the state directory, a bridge that
// is the node's address, and a veth pair by which the host reaches API server, Services and pods.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func run(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

func output(name string, args ...string) (string, error) {
	command := exec.Command(name, args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(stdout), nil
}

func (c *Cluster) inside(name string, args ...string) error {
	return run("nsenter", append([]string{"--net=" + c.netns(), name}, args...)...)
}

// ensureNetwork makes what is missing, and says whether the namespace is a new one: then
// nothing that ran in the old one is of use any more.
func (c *Cluster) ensureNetwork() (fresh bool, err error) {
	if !mounted(c.netns()) || c.inside("ip", "link", "show", "node0") != nil {
		fresh = true
		if err := c.removeNetwork(); err != nil {
			return true, err
		}
		if err := c.createNamespace(); err != nil {
			return true, err
		}
	}
	if run("ip", "link", "show", c.veth()) != nil || c.inside("ip", "link", "show", "uplink") != nil {
		return fresh, c.createUplink()
	}
	return fresh, nil
}

func (c *Cluster) createNamespace() error {
	if err := os.WriteFile(c.netns(), nil, 0o644); err != nil {
		return err
	}
	if err := run("unshare", "--net="+c.netns(), "true"); err != nil {
		return err
	}
	steps := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", "node0", "type", "bridge"},
		{"ip", "address", "add", c.nodeIP() + "/24", "dev", "node0"},
		{"ip", "link", "set", "node0", "up"},
		// Nothing lies beyond it, but components look for "the" address by the default route.
		{"ip", "route", "add", "default", "dev", "node0"},
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
	}
	if !c.simulated() {
		// Refuse what leads out at once: a pull from a registry would else wait for its time-outs.
		for _, chain := range []string{"OUTPUT", "FORWARD"} {
			steps = append(steps, []string{"iptables", "-A", chain, "-o", "node0", "!", "-d", "198.18.0.0/15", "-j", "REJECT"})
			// And what goes to a Service before kube-proxy has its rules: conntrack would remember for two
			// minutes that this connection is not to be redirected, and fail another from the same port.
			steps = append(steps, []string{"iptables", "-A", chain, "-d", c.serviceCIDR(), "-j", "REJECT"})
		}
	}
	for _, step := range steps {
		if err := c.inside(step[0], step[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) createUplink() error {
	_ = run("ip", "link", "delete", c.veth()) // half of a pair, if anything
	if err := run("ip", "link", "add", c.veth(), "type", "veth", "peer", "name", "uplink", "netns", c.netns()); err != nil {
		return err
	}
	for _, step := range [][]string{
		{"ip", "address", "add", c.serverIP() + "/30", "dev", "uplink"},
		{"ip", "link", "set", "uplink", "up"},
	} {
		if err := c.inside(step[0], step[1:]...); err != nil {
			return err
		}
	}
	for _, step := range [][]string{
		{"ip", "address", "add", c.hostIP() + "/30", "dev", c.veth()},
		{"ip", "link", "set", c.veth(), "up"},
		{"ip", "route", "replace", c.serviceCIDR(), "via", c.serverIP()},
		{"ip", "route", "replace", c.podCIDR(), "via", c.serverIP()},
	} {
		if err := run(step[0], step[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// removeNetwork deletes the veth pair and the name of the namespace; the kernel frees it, with
// its bridge and iptables rules, when the last process is gone.
func (c *Cluster) removeNetwork() error {
	if run("ip", "link", "show", c.veth()) == nil {
		if err := run("ip", "link", "delete", c.veth()); err != nil {
			return err
		}
	}
	return unmountBelow(c.netns())
}

func mounted(path string) bool {
	for _, point := range mountPoints() {
		if point == path {
			return true
		}
	}
	return false
}

// mountPoints lists them in the order in which they were made.
func mountPoints() []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 {
			points = append(points, unescape.Replace(fields[1]))
		}
	}
	return points
}

// unmountBelow unmounts a path and everything under it, the latest first.
func unmountBelow(path string) error {
	var failed error
	points := mountPoints()
	for i := len(points) - 1; i >= 0; i-- {
		if points[i] != path && !strings.HasPrefix(points[i], path+"/") {
			continue
		}
		if err := syscall.Unmount(points[i], syscall.MNT_DETACH); err != nil {
			failed = fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return failed
}
