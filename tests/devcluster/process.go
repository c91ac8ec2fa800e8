// Processes: started detached in the cluster's network namespace and control group, known by
// pid and start time (pids are reused), listed and ended by the group, which also holds the
// shims and containers that nobody has a pid of.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spawn starts a program under the given name (argv[0] may differ from its file).
func (c *Cluster) spawn(name, program string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("logs"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(c.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %s %s\n", time.Now().Format(time.RFC3339), program, strings.Join(args, " "))
	command := exec.Command(self, append([]string{enterCommand, c.Name, program}, args...)...)
	// Nothing of the caller's: a proxy in its environment would take the API server's calls.
	command.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.path(), "DEVCLUSTER_STATE=" + stateHome(),
		"KUBECONFIG=" + c.kubeconfigOf(name), moreMemory}
	command.Stdout, command.Stderr = log, log
	command.Dir = c.path()
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	started, _ := startTime(command.Process.Pid)
	pid := fmt.Sprintf("%d %s\n", command.Process.Pid, started)
	go command.Wait() // so that a component that ends at once is not a zombie for its log's reader
	return writeFile(c.pidFile(name), []byte(pid), 0o644)
}

// enter turns this process into a program inside the cluster: args are name, program, arguments.
func enter(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: " + enterCommand + " CLUSTER PROGRAM [ARGUMENT...]")
	}
	c, err := existing(args[0])
	if err != nil {
		return err
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	for _, dir := range c.groupDirs("system") {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join the control group: %w; `make cluster NAME=%s` makes it again", err, c.Name)
		}
	}
	runtime.LockOSThread() // the namespace is the thread's, and exec keeps the thread that calls it
	namespace, err := os.Open(c.netns())
	if err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(sysSetns, namespace.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		return fmt.Errorf("enter the network namespace of %s: %w; `make cluster NAME=%s` heals it", c.Name, errno, c.Name)
	}
	return syscall.Exec(program, args[1:], os.Environ())
}

// closeInherited keeps daemons from holding open what the caller of `up` had open (pipes of a
// test harness, the job server of make).
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

func (c *Cluster) logFile(name string) string { return c.path("logs", name+".log") }
func (c *Cluster) pidFile(name string) string { return c.path("pids", name) }

// pid gives the process of a component, or 0 if it does not run.
func (c *Cluster) pid(name string) int {
	data, err := os.ReadFile(c.pidFile(name))
	if err != nil {
		return 0
	}
	var pid int
	var started string
	if n, _ := fmt.Sscan(string(data), &pid, &started); n != 2 {
		return 0
	}
	if now, state := startTime(pid); now != started || state == 'Z' {
		return 0
	}
	return pid
}

// startTime reads the start time and the state of a process from its stat line.
func startTime(pid int) (string, byte) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	line := string(data)
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 20 {
		return "", 0
	}
	return fields[19], fields[0][0]
}

func (c *Cluster) signal(name string, signal syscall.Signal) error {
	pid := c.pid(name)
	if pid == 0 {
		return fmt.Errorf("%s of cluster %s does not run", name, c.Name)
	}
	return syscall.Kill(pid, signal)
}

// stopProcess ends a component, by force after the grace period.
func (c *Cluster) stopProcess(name string, grace time.Duration) error {
	pid := c.pid(name)
	if pid == 0 {
		return nil
	}
	syscall.Kill(pid, syscall.SIGCONT)
	syscall.Kill(pid, syscall.SIGTERM)
	if await(grace, func() bool { return c.pid(name) == 0 }) {
		return nil
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if !await(10*time.Second, func() bool { return c.pid(name) == 0 }) {
		return fmt.Errorf("%s (pid %d) does not end", name, pid)
	}
	return nil
}

// await polls a local condition at short intervals until it holds or the time is over.
func await(limit time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

func (c *Cluster) group() string { return "devcluster-" + c.Name }

// groupRoots are the mounted hierarchies of control groups: one for each controller of version 1,
// or the one tree of version 2, or both (then the runtime makes groups in both).
func groupRoots() []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var roots []string
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 2 && (fields[2] == "cgroup" || fields[2] == "cgroup2") {
			roots = append(roots, fields[1])
		}
	}
	return roots
}

func (c *Cluster) groupDirs(parts ...string) []string {
	var dirs []string
	for _, root := range groupRoots() {
		dirs = append(dirs, filepath.Join(append([]string{root, c.group()}, parts...)...))
	}
	return dirs
}

// ensureGroups makes the cluster's control group: `system` for its daemons, and beside it the
// kubelet makes `kubepods`.
func (c *Cluster) ensureGroups() error {
	for _, root := range groupRoots() {
		for _, dir := range []string{filepath.Join(root, c.group()), filepath.Join(root, c.group(), "system")} {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("control group: %w", err)
			}
			inheritCPUSet(dir)
			delegateControllers(filepath.Dir(dir))
		}
	}
	return nil
}

// inheritCPUSet fills in what version 1 demands before a group of the cpuset hierarchy takes processes.
func inheritCPUSet(dir string) {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		if parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name)); err == nil {
			os.WriteFile(filepath.Join(dir, name), parent, 0)
		}
	}
}

// delegateControllers lets the children of a version 2 group limit what the group itself may.
func delegateControllers(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(data)) {
		os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// members lists the processes in part of the cluster's group.
func (c *Cluster) members(parts ...string) map[int]bool {
	pids := map[int]bool{}
	for _, root := range c.groupDirs(parts...) {
		filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, word := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 && pid != os.Getpid() {
					pids[pid] = true
				}
			}
			return nil
		})
	}
	return pids
}

// killMembers ends every process in part of the group, whoever started it.
func (c *Cluster) killMembers(parts ...string) error {
	empty := await(20*time.Second, func() bool {
		pids := c.members(parts...)
		for pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	if !empty {
		return fmt.Errorf("processes of cluster %s do not end: %v", c.Name, c.members(parts...))
	}
	return nil
}

func (c *Cluster) removeGroups() error {
	var failed error
	for _, root := range c.groupDirs() {
		var dirs []string
		filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			dir := dirs[i]
			if !await(5*time.Second, func() bool {
				err := syscall.Rmdir(dir)
				return err == nil || errors.Is(err, fs.ErrNotExist)
			}) {
				failed = fmt.Errorf("control group %s cannot be removed", dir)
			}
		}
	}
	return failed
}
