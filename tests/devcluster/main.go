// devcluster: a real Kubernetes for tests and demo, from the package registries alone, in a
// network namespace of its own. This file has the command line; README.md says what each does.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	enterCommand   = "__enter"
	compactCommand = "__compact"
	targetsCommand = "__targets"
)

const usage = `usage: devcluster [--name NAME] COMMAND

  up [--nodes real|simulated] [--node-count N] [--addons A,B] [--audit] [--kubeconfig FILE]
                          start the cluster, or heal it, and print its kubeconfig
  down                    end it and remove every trace
  status                  list clusters and their components
  addon NAME              add metrics-server, gateway, contour or prometheus to a running cluster
  kubeconfig              print the path of the administrator's kubeconfig
  logs COMPONENT [-f]     show the end of a component's log
  kill|stop|cont COMPONENT...   SIGKILL, SIGSTOP, SIGCONT ("kill all": every process, container and the network)
  restart COMPONENT...    end by SIGTERM and start again
  compact                 compact etcd to its current revision
  exec -- COMMAND...      run a command in the cluster's network namespace
  image load localhost/NAME:TAG DIR|TAR [--entrypoint P] [--cmd A,B] [--env K=V] [--user U]
  image build localhost/NAME:TAG CONTEXT [-f FILE] [--build-arg K=V]
  image rootfs DIR PROGRAM[:PLACE]...   copy programs and their libraries to a root file system
  target                  print embedded, kind, k3d or minikube: where images would go
  tool NAME               build a program if need be and print its path (kwok, helm, ...)
`

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "devcluster: "+format+"\n", args...) }

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		say("%v", err)
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	switch {
	case len(args) > 0 && args[0] == enterCommand:
		closeInherited()
		return enter(args[1:])
	case len(args) > 0 && args[0] == compactCommand:
		return compactEtcd()
	case len(args) == 2 && args[0] == targetsCommand:
		return serveTargets(args[1])
	}
	global := flag.NewFlagSet("devcluster", flag.ContinueOnError)
	global.SetOutput(os.Stderr)
	global.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	name := global.String("name", os.Getenv("DEVCLUSTER_NAME"), "")
	if err := global.Parse(args); err != nil {
		return err
	}
	if global.NArg() == 0 {
		global.Usage()
		return errors.New("no command")
	}
	named := *name != ""
	if !named {
		*name = "dev"
	}
	command, rest := global.Arg(0), global.Args()[1:]
	switch command {
	case "up":
		return upCommand(*name, rest)
	case "down":
		return down(*name, defaultKubeconfig(*name))
	case "status":
		showStatus()
		return nil
	case "tool":
		return toolCommand(rest)
	case "target":
		to, err := findTarget(*name, named)
		if err != nil {
			return err
		}
		fmt.Println(to.kind)
		return nil
	case "image":
		return imageCommand(*name, named, rest)
	}
	c, err := existing(*name)
	if err != nil {
		return err
	}
	return onCluster(c, command, rest)
}

func onCluster(c *Cluster, command string, args []string) error {
	again := func() error { return up(request{name: c.Name, output: defaultKubeconfig(c.Name)}) }
	switch command {
	case "addon":
		if len(args) != 1 {
			return errors.New("usage: devcluster addon NAME; there are " + strings.Join(addons, ", "))
		}
		if err := checkAddon(args[0]); err != nil {
			return err
		}
		return up(request{name: c.Name, addons: args, output: defaultKubeconfig(c.Name)})
	case "kubeconfig":
		fmt.Println(c.kubeconfigOf("admin"))
		return nil
	case "logs":
		return showLogs(c, args)
	case "kill":
		return kill(c, args)
	case "stop":
		return signalAll(c, args, syscall.SIGSTOP)
	case "cont":
		return signalAll(c, args, syscall.SIGCONT)
	case "restart":
		return restart(c, args, again)
	case "compact":
		return inNamespace(c, compactCommand)
	case "exec":
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		return enter(append([]string{c.Name}, args...))
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("no command %q", command)
}

// defaultKubeconfig is in the tree that holds the sources: .devcluster/kubeconfig for dev.
func defaultKubeconfig(name string) string {
	source, err := sourceDir()
	if err != nil {
		return filepath.Join(stateDir(name), "kubeconfig")
	}
	place := filepath.Join(source, "..", "..", ".devcluster")
	if name != "dev" {
		place = filepath.Join(place, name)
	}
	return filepath.Join(place, "kubeconfig")
}

func upCommand(name string, args []string) error {
	want := request{name: name}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.StringVar(&want.nodes, "nodes", "", "real or simulated")
	flags.IntVar(&want.nodeCount, "node-count", 0, "how many simulated nodes")
	addons := flags.String("addons", "", "add-ons, separated by commas")
	flags.BoolVar(&want.audit, "audit", false, "keep an audit log of all requests")
	flags.StringVar(&want.output, "kubeconfig", defaultKubeconfig(name), "where to write the kubeconfig")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if want.nodes != "" && want.nodes != realNodes && want.nodes != simulatedNodes {
		return fmt.Errorf("nodes are %s or %s, not %q", realNodes, simulatedNodes, want.nodes)
	}
	for _, addon := range strings.FieldsFunc(*addons, func(r rune) bool { return r == ',' || r == ' ' }) {
		if err := checkAddon(addon); err != nil {
			return err
		}
		want.addons = append(want.addons, addon)
	}
	return up(want)
}

func checkAddon(name string) error {
	for _, known := range addons {
		if name == known {
			return nil
		}
	}
	return fmt.Errorf("no add-on %q; there are %s", name, strings.Join(addons, ", "))
}

func toolCommand(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: devcluster tool NAME")
	}
	dirs, err := ensurePrograms(args[0])
	if err != nil {
		return err
	}
	fmt.Println(filepath.Join(dirs[args[0]], args[0]))
	return nil
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func imageCommand(name string, named bool, args []string) error {
	if len(args) >= 3 && args[0] == "rootfs" {
		return makeRootfs(args[1], args[2:])
	}
	if len(args) < 3 || (args[0] != "load" && args[0] != "build") {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("image load, image build or image rootfs")
	}
	var config imageConfig
	var entrypoint, command, dockerfile string
	var arguments list
	flags := flag.NewFlagSet("image "+args[0], flag.ContinueOnError)
	flags.StringVar(&entrypoint, "entrypoint", "", "program and arguments, separated by commas")
	flags.StringVar(&command, "cmd", "", "default arguments, separated by commas")
	flags.Var((*list)(&config.Env), "env", "K=V, may be given several times")
	flags.StringVar(&config.User, "user", "", "uid or uid:gid")
	flags.StringVar(&dockerfile, "f", "", "the Dockerfile (CONTEXT/Dockerfile)")
	flags.Var(&arguments, "build-arg", "K=V, may be given several times")
	if err := flags.Parse(args[3:]); err != nil {
		return err
	}
	to, err := findTarget(name, named)
	if err != nil {
		return err
	}
	if args[0] == "load" {
		config.Entrypoint, config.Cmd = fields(entrypoint), fields(command)
		return loadImage(to, args[1], args[2], config)
	}
	if dockerfile == "" {
		dockerfile = filepath.Join(args[2], "Dockerfile")
	}
	var options []string
	for _, argument := range arguments {
		options = append(options, "--build-arg", argument)
	}
	return buildImage(to, args[1], args[2], dockerfile, options)
}

func fields(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
