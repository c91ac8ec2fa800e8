// Programs built from Go modules, kept outside the tree under the hash of what they are built
// from, so that every clone and every cluster shares them.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	versionFlags = " -X k8s.io/component-base/version.gitVersion=v1.35.4" +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35"
	unusedFor = 14 * 24 * time.Hour
	// Compilers and components collect their garbage less often than by default: there is more memory than time.
	moreMemory = "GOGC=400"
)

// program is one cacheable build: a module below the source directory, and what to build in it.
type program struct {
	name    string
	module  string // none: it is not built, and `edition` says what it is
	target  string // none: there is nothing to build, only something to copy
	tags    string // build tags
	ldflags string
	links   []string                                    // further names under which the program behaves differently
	host    map[string]string                           // Debian packages by their files, which are used in place, too
	edition string                                      // changes the key when `extra` changes
	cold    string                                      // measured on two cores with an empty build cache
	trim    func(p program, dir string) (string, error) // makes another go.mod in dir to build with
	extra   func(p program, dir string) error
}

var programs = []program{
	{name: "kubernetes", module: "kube", target: ".", cold: "6 min",
		ldflags: versionFlags,
		links:   []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"}},
	{name: "coredns", module: "tools/coredns", target: ".", cold: "2 min"},
	{name: "kwok", module: "tools/kwok", target: "sigs.k8s.io/kwok/cmd/kwok", cold: "2 min", extra: copyStages, edition: "nodes"},
	{name: "metrics-server", module: "tools/metrics-server", target: "sigs.k8s.io/metrics-server/cmd/metrics-server", cold: "3 min"},
	{name: "helm", module: "tools/helm", target: "helm.sh/helm/v3/cmd/helm", cold: "2 min"},
	{name: "kubectl", module: "kube", target: "k8s.io/kubernetes/cmd/kubectl", cold: "1.5 min", ldflags: versionFlags},
	{name: "gateway-api", module: "tools/gateway-api", cold: "5 s", extra: copyGatewayCRDs, edition: "standard"},
	{name: "traefik", module: "tools/traefik", target: "github.com/traefik/traefik/v3/cmd/traefik", cold: "4 min", trim: trimTraefik, extra: copyTraefikCRDs, edition: "crds, no DNS providers"},
	{name: "contour", module: "tools/contour", target: "github.com/projectcontour/contour/cmd/contour", cold: "3 min", extra: copyContourCRDs, edition: "crds"},
	{name: "envoy", module: "tools/envoy", cold: "10 s", extra: unpackEnvoy},
	{name: "prometheus", cold: "5 s", extra: unpackPrometheus, edition: "debian"},
	{name: "postgres", cold: "1 min", extra: copyPostgres, host: postgresTools, edition: "debian-15-1"},
	{name: "pgbouncer", cold: "10 s", extra: copyPgBouncer, host: map[string]string{pgBouncer: "pgbouncer"}, edition: "debian"},
	{name: "prisma", module: "tools/prisma", cold: "20 s", extra: copyPrisma, edition: "rootfs-1"},
	{name: "flyway", module: "tools/flyway", cold: "1 min", extra: copyFlyway, edition: "rootfs-1"},
	{name: "golang-migrate", module: "tools/golang-migrate", target: "github.com/golang-migrate/migrate/v4/cmd/migrate",
		tags: "postgres", cold: "30 s", extra: placeGolangMigrate, edition: "rootfs-1"},
	{name: "k6", module: "tools/k6", target: "go.k6.io/k6", cold: "2 min"},
	{name: "pause", module: ".", target: "./pause", cold: "5 s"},
}

func cacheHome() (string, error) {
	if home := os.Getenv("DEVCLUSTER_CACHE"); home != "" {
		return home, nil
	}
	base, err := os.UserCacheDir()
	return filepath.Join(base, "service-release-operator"), err
}

func sourceDir() (string, error) {
	dir := os.Getenv("DEVCLUSTER_SOURCE")
	if dir == "" {
		return "", fmt.Errorf("call tests/devcluster/devcluster, which sets DEVCLUSTER_SOURCE")
	}
	return dir, nil
}

func findProgram(name string) (program, error) {
	var names []string
	for _, p := range programs {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return program{}, fmt.Errorf("no program %q; there are %s", name, strings.Join(names, ", "))
}

// dir is where the finished build is, or will be.
func (p program) dir() (string, error) {
	home, err := cacheHome()
	if err != nil {
		return "", err
	}
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	module := filepath.Join(source, p.module)
	files := []string{}
	patterns := []string{"go.mod", "go.sum", "*.go", "requirements.txt", "package-lock.json", "*.ts", "pom.xml"}
	if p.module == "" {
		patterns = nil
	}
	for _, pattern := range patterns {
		// The root module's program is a directory of its own beside the orchestrator.
		from := module
		if pattern == "*.go" && strings.HasPrefix(p.target, "./") {
			from = filepath.Join(module, p.target)
		}
		found, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	sort.Strings(files)
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, p.target, p.ldflags, p.links, p.edition)
	if p.tags != "" {
		fmt.Fprintln(hash, p.tags)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(file), len(data))
		hash.Write(data)
	}
	return filepath.Join(home, "programs", p.name+"-"+hex.EncodeToString(hash.Sum(nil))[:16]), nil
}

// ensurePrograms builds what is not in the cache, and gives the directory of each.
func ensurePrograms(names ...string) (map[string]string, error) {
	dirs := map[string]string{}
	var missing []program
	for _, name := range names {
		p, err := findProgram(name)
		if err != nil {
			return nil, err
		}
		dir, err := p.dir()
		if err != nil {
			return nil, err
		}
		dirs[name] = dir
		if len(p.host) > 0 {
			if err := requireTools(p.host); err != nil {
				return nil, err
			}
		}
		if err := os.Chtimes(dir, time.Now(), time.Now()); err != nil { // its use keeps it from being pruned
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return dirs, nil
	}
	var parts []string
	for _, p := range missing {
		parts = append(parts, p.name+" ("+p.cold+")")
	}
	say("To build first, kept for later runs; times are those of 2 cores and an empty Go cache: %s", strings.Join(parts, ", "))
	for _, p := range missing {
		if err := p.build(dirs[p.name]); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

func (p program) build(dir string) error {
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil // another command built it while this one waited
	}
	source, err := sourceDir()
	if err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", dir, os.Getpid())
	defer os.RemoveAll(temporary)
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return err
	}
	if p.target != "" {
		args := []string{"build", "-trimpath", "-tags", p.tags, "-ldflags", "-s -w" + p.ldflags, "-o", filepath.Join(temporary, p.name)}
		if p.trim != nil {
			scratch, err := os.MkdirTemp("", "devcluster-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			modfile, err := p.trim(p, scratch)
			if err != nil {
				return err
			}
			args = append(args, "-modfile="+modfile)
		}
		command := exec.Command("go", append(args, p.target)...)
		command.Dir = filepath.Join(source, p.module)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off", moreMemory)
		if err := runWithProgress(command, p.name, p.cold); err != nil {
			return err
		}
	}
	for _, link := range p.links {
		if err := os.Symlink(p.name, filepath.Join(temporary, link)); err != nil {
			return err
		}
	}
	if p.extra != nil {
		if err := p.extra(p, temporary); err != nil {
			return err
		}
	}
	p.prune(filepath.Dir(dir))
	return os.Rename(temporary, dir)
}

// prune removes builds of the same program that nobody has used for two weeks.
func (p program) prune(home string) {
	builds, _ := filepath.Glob(filepath.Join(home, p.name+"-*"))
	for _, build := range builds {
		if info, err := os.Stat(build); err == nil && time.Since(info.ModTime()) > unusedFor {
			os.RemoveAll(build)
		}
	}
}

// runWithProgress says every fifteen seconds that the build is still going on.
func runWithProgress(command *exec.Cmd, name, cold string) error {
	var all bytes.Buffer
	command.Stdout, command.Stderr = &all, &all
	begin := time.Now()
	say("building %s (cold: about %s)", name, cold)
	if err := command.Start(); err != nil {
		return fmt.Errorf("build %s: %w; Go 1.26 or newer is needed", name, err)
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				io.Copy(os.Stderr, &all)
				return fmt.Errorf("build %s: %w", name, err)
			}
			say("built %s in %s", name, time.Since(begin).Round(time.Second))
			return nil
		case <-ticker.C:
			say("  building %s, %s so far", name, time.Since(begin).Round(time.Second))
		}
	}
}

func lockFile(path string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		say("waiting for another build that holds %s", path)
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			file.Close()
			return nil, err
		}
	}
	return func() { file.Close() }, nil
}

// copyStages puts KWOK's own descriptions of how nodes behave beside the program. Those of pods
// are ours (config/stages.yaml), so that tests can have pods that fail.
func copyStages(p program, dir string) error {
	kwok, err := p.sourcesOf("sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	var all bytes.Buffer
	for _, pattern := range []string{"node/fast/node-*.yaml", "node/heartbeat-with-lease/node-*.yaml"} {
		files, err := filepath.Glob(filepath.Join(kwok, "kustomize", "stage", pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("kwok has no stages %s", pattern)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, "---\n%s\n", data)
		}
	}
	return os.WriteFile(filepath.Join(dir, "stages.yaml"), all.Bytes(), 0o644)
}

// sourcesOf is where Go keeps the sources of a module that the program's own requires.
func (p program) sourcesOf(name string) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	return moduleDir(filepath.Join(source, p.module), name)
}

// moduleDir is where Go keeps the sources of a module that another one requires.
func moduleDir(from, name string) (string, error) {
	command := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", name)
	command.Dir = from
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}
