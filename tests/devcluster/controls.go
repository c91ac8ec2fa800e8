// The commands that fault tests and people use on a running cluster: break a component, stop
// and continue it, compact etcd, run something inside, look at logs and state.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const everything = "all"

// kill ends one component at once, or `all`: every process and container, and the network.
func kill(c *Cluster, names []string) error {
	for _, name := range names {
		if name == everything {
			if err := c.killMembers(); err != nil {
				return err
			}
			if err := c.removeNetwork(); err != nil {
				return err
			}
			continue
		}
		if err := signalAll(c, []string{name}, syscall.SIGKILL); err != nil {
			return err
		}
		if !await(10*time.Second, func() bool { return c.pid(name) == 0 }) {
			return fmt.Errorf("%s does not end", name)
		}
	}
	return nil
}

func signalAll(c *Cluster, names []string, signal syscall.Signal) error {
	if len(names) == 0 {
		return fmt.Errorf("name a component of cluster %s", c.Name)
	}
	for _, name := range names {
		if _, err := findComponent(c, name); err != nil {
			return err
		}
		if err := c.signal(name, signal); err != nil {
			return err
		}
	}
	return nil
}

// restart ends components by SIGTERM and starts the cluster again.
func restart(c *Cluster, names []string, again func() error) error {
	for _, name := range names {
		if _, err := findComponent(c, name); err != nil {
			return err
		}
		if err := c.stopProcess(name, 10*time.Second); err != nil {
			return err
		}
	}
	return again()
}

// compactEtcd runs inside the namespace: it discards all revisions of the store but the current
// one, so that watches from older ones are told that they are too old.
func compactEtcd() error {
	var status struct {
		Header struct{ Revision string }
	}
	if err := etcdCall("kv/range", `{"key":"Lw=="}`, &status); err != nil {
		return err
	}
	body := fmt.Sprintf(`{"revision":%q,"physical":true}`, status.Header.Revision)
	if err := etcdCall("kv/compaction", body, nil); err != nil {
		return err
	}
	fmt.Printf("compacted to revision %s\n", status.Header.Revision)
	return nil
}

func etcdCall(method, body string, into any) error {
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Post("http://127.0.0.1:2379/v3/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s: %s", method, response.Status, shorten(answer.String()))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer.Bytes(), into)
}

// inNamespace replaces this process by one of the orchestrator's own commands inside the cluster.
func inNamespace(c *Cluster, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return enter(append([]string{c.Name, self}, args...))
}

func (c *Cluster) logTail(name string, lines int) string {
	data, err := os.ReadFile(c.logFile(name))
	if err != nil {
		return fmt.Sprintf("(%s has no log)", name)
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return fmt.Sprintf("the end of %s:\n  %s", c.logFile(name), strings.Join(all, "\n  "))
}

// showLogs hands over to tail, with its options.
func showLogs(c *Cluster, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: devcluster logs COMPONENT [options of tail]; they are in %s", c.path("logs"))
	}
	if _, err := findComponent(c, args[0]); err != nil {
		return err
	}
	tail, err := exec.LookPath("tail")
	if err != nil {
		return err
	}
	options := args[1:]
	if len(options) == 0 {
		options = []string{"-n", "100"}
	}
	return syscall.Exec(tail, append(append([]string{"tail"}, options...), c.logFile(args[0])), os.Environ())
}

func showStatus() {
	clusters := allClusters()
	if len(clusters) == 0 {
		fmt.Println("no cluster")
	}
	for _, c := range clusters {
		fmt.Printf("%s: %s nodes, node %s, API server %s, services %s, pods %s\n", c.Name, c.Nodes, c.nodeIP(), c.server(), c.serviceCIDR(), c.podCIDR())
		for _, part := range components {
			if !c.wants(part) {
				continue
			}
			state := "does not run"
			if pid := c.pid(part.name); pid != 0 {
				state = fmt.Sprintf("pid %d", pid)
				if _, letter := startTime(pid); letter == 'T' {
					state += ", stopped"
				}
			}
			fmt.Printf("  %-24s %s\n", part.name, state)
		}
	}
}
