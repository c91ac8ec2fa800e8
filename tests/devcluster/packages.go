// What the machine must have: root, and some Debian packages, which are installed when apt is there.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	networkTools = map[string]string{"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "sysctl": "procps",
		// Not of the cluster's own, but of everything that is run on it.
		"jq": "jq", "strip": "binutils"}
	nodeTools = map[string]string{"containerd": "containerd", "ctr": "containerd", "runc": "runc",
		"/usr/lib/cni/ptp": "containernetworking-plugins", "iptables": "iptables"}
	imageTools = map[string]string{"buildah": "buildah"}
	wheelTools = map[string]string{"python3": "python3", "pip3": "python3-pip"}
)

// requireTools finds or installs the packages that have the given programs.
func requireTools(groups ...map[string]string) error {
	if os.Geteuid() != 0 {
		return errors.New("the embedded cluster makes network namespaces and containers and so needs root: " +
			"run this as root, or set KUBECONFIG to a cluster of your own (kind, k3d, minikube)")
	}
	missing := map[string]bool{}
	var packages []string
	for _, group := range groups {
		for tool, name := range group {
			if !isThere(tool) && !missing[name] {
				missing[name] = true
				packages = append(packages, name)
			}
		}
	}
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing on this machine: %s (names of the Debian packages); install them and try again", list)
	}
	say("installing the Debian packages %s (about 1 min)", list)
	if err := apt("update", "-qq"); err != nil {
		return fmt.Errorf("%w; install these packages by hand: %s", err, list)
	}
	if err := apt(append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)...); err != nil {
		return fmt.Errorf("%w; install these packages by hand: %s", err, list)
	}
	return nil
}

// isThere says whether a program is on the PATH, or a file at its place.
func isThere(tool string) bool {
	if filepath.IsAbs(tool) {
		_, err := os.Stat(tool)
		return err == nil
	}
	_, err := exec.LookPath(tool)
	return err == nil
}

// unpackPackage puts one file of a Debian package at a place, without installing it. Where there is no apt,
// it takes the program of that name which the machine has.
func unpackPackage(name, file, to string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		own, err := exec.LookPath(filepath.Base(file))
		if err != nil {
			return fmt.Errorf("missing on this machine: %s (name of the Debian package); install it and try again", name)
		}
		return copyProgram(own, to)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(to), "package")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	download := func() error {
		// As root: the user to whom apt would step down cannot write here.
		command := exec.Command("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name)
		command.Dir = scratch
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("download the Debian package %s: %w\n%s", name, err, shorten(string(out)))
		}
		return nil
	}
	say("downloading the Debian package %s", name)
	// What the lists name may be replaced by a newer version since they were made.
	if download() != nil {
		if err := apt("update", "-qq"); err != nil {
			return err
		}
		if err := download(); err != nil {
			return err
		}
	}
	found, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("download the Debian package %s: there are %d files", name, len(found))
	}
	if err := run("dpkg-deb", "--extract", found[0], scratch); err != nil {
		return err
	}
	return os.Rename(filepath.Join(scratch, file), to)
}

// apt keeps the packages' services from starting: the cluster runs its own containerd. RUNLEVEL
// serves systems without systemd, the policy file all others.
func apt(args ...string) error {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err == nil {
			defer os.Remove(policy)
		}
	}
	command := exec.Command("apt-get", args...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, shorten(string(out)))
	}
	return nil
}
