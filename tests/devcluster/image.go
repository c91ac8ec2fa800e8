// Images for clusters without a registry: made from a directory or a Dockerfile, and loaded into
// an embedded cluster or into the user's own.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const pauseImage = "localhost/pause:devcluster"

// ctr talks to the cluster's containerd in the namespace of the kubelet's images.
func (c *Cluster) ctr(args ...string) (string, error) {
	return output("ctr", append([]string{"--address", c.path("containerd.sock"), "--timeout", "60s", "-n", "k8s.io"}, args...)...)
}

func (c *Cluster) hasImage(image string) bool {
	out, err := c.ctr("images", "list", "-q", "name=="+image)
	return err == nil && strings.TrimSpace(out) == image
}

func (c *Cluster) ensurePauseImage(program string) error {
	err := c.waitFor("containerd to answer", 60*time.Second, []string{"containerd"}, func() error {
		_, err := c.ctr("version")
		return err
	})
	if err != nil || c.hasImage(pauseImage) {
		return err
	}
	return withScratch(func(dir string) error {
		root, archive := filepath.Join(dir, "root"), filepath.Join(dir, "image.tar")
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		if err := copyProgram(filepath.Join(program, "pause"), filepath.Join(root, "pause")); err != nil {
			return err
		}
		if err := writeArchive(archive, pauseImage, root, imageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"}); err != nil {
			return err
		}
		return c.importArchive(archive, pauseImage)
	})
}

func (c *Cluster) importArchive(archive, image string) error {
	if _, err := c.ctr("images", "import", archive); err != nil {
		return err
	}
	if !c.hasImage(image) {
		return fmt.Errorf("%s was imported but has no image named %s", archive, image)
	}
	return nil
}

func withScratch(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "devcluster-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return do(dir)
}

// checkImageName asks for a name that no container runtime completes in its own way.
func checkImageName(image string) error {
	last := image[strings.LastIndexByte(image, '/')+1:]
	if !strings.HasPrefix(image, "localhost/") || !strings.Contains(last, ":") {
		return fmt.Errorf("image name %q: write localhost/NAME:TAG", image)
	}
	return nil
}

// loadImage makes an image of a directory, a tar of a root file system or an archive of images,
// and loads it.
func loadImage(to target, image, source string, config imageConfig) error {
	if err := checkImageName(image); err != nil {
		return err
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if ready, err := isImageArchive(source); err != nil || ready {
			return errors.Join(err, loadIf(ready, to, source, image))
		}
	}
	return withScratch(func(dir string) error {
		archive := filepath.Join(dir, "image.tar")
		if err := writeArchive(archive, image, source, config); err != nil {
			return err
		}
		return to.load(archive, image)
	})
}

func loadIf(ready bool, to target, archive, image string) error {
	if !ready {
		return nil
	}
	return to.load(archive, image)
}

// buildImage runs a Dockerfile with buildah, without daemon and without privileges of its own.
func buildImage(to target, image, context, dockerfile string, options []string) error {
	if err := checkImageName(image); err != nil {
		return err
	}
	if err := requireTools(imageTools); err != nil {
		return err
	}
	return withScratch(func(dir string) error {
		archive := filepath.Join(dir, "image.tar")
		storage := []string{"--storage-driver", "vfs", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}
		build := append(append([]string{}, storage...), "bud", "--isolation", "chroot", "--network", "host", "-t", image, "-f", dockerfile)
		build = append(append(build, options...), context)
		command := exec.Command("buildah", build...)
		command.Stdout, command.Stderr = os.Stderr, os.Stderr
		if err := command.Run(); err != nil {
			return fmt.Errorf("buildah bud %s: %w", dockerfile, err)
		}
		if err := run("buildah", append(storage, "push", image, "docker-archive:"+archive+":"+image)...); err != nil {
			return err
		}
		return to.load(archive, image)
	})
}

// target is where images go: an embedded cluster, or one of the user's of a kind that takes archives.
type target struct {
	kind    string // embedded, kind, k3d or minikube
	cluster *Cluster
	loader  []string // command that takes the archive as its last argument
}

func (t target) load(archive, image string) error {
	if t.cluster == nil {
		return run(t.loader[0], append(append([]string{}, t.loader[1:]...), archive)...)
	}
	if t.cluster.simulated() {
		return nil // simulated pods have every image
	}
	return t.cluster.importArchive(archive, image)
}

// findTarget decides by the name given, else by the context of the user's KUBECONFIG.
func findTarget(name string, named bool) (target, error) {
	if named || os.Getenv("KUBECONFIG") == "" {
		return embeddedTarget(name)
	}
	context, err := output("kubectl", "config", "current-context")
	if err != nil {
		return target{}, err
	}
	context = strings.TrimSpace(context)
	if own, found := strings.CutPrefix(context, "devcluster-"); found {
		return embeddedTarget(own)
	}
	if own, found := strings.CutPrefix(context, "kind-"); found {
		return userTarget("kind", "load", "image-archive", "--name", own)
	}
	if own, found := strings.CutPrefix(context, "k3d-"); found {
		return userTarget("k3d", "image", "import", "--cluster", own)
	}
	// minikube names the context after the profile, and marks the cluster as its own.
	const mark = "jsonpath={.clusters[0].cluster.extensions[?(@.name=='cluster_info')].extension.provider}"
	if provider, err := output("kubectl", "config", "view", "--minify", "-o", mark); err == nil && strings.Contains(provider, "minikube") {
		return userTarget("minikube", "image", "load", "--profile", context)
	}
	return target{}, fmt.Errorf("KUBECONFIG has the context %q, which is neither kind, k3d nor minikube: push the image to a registry that "+
		"this cluster pulls from, or unset KUBECONFIG to use the embedded cluster", context)
}

func embeddedTarget(name string) (target, error) {
	c, err := existing(name)
	return target{kind: "embedded", cluster: c}, err
}

func userTarget(loader ...string) (target, error) {
	if _, err := exec.LookPath(loader[0]); err != nil {
		return target{}, fmt.Errorf("the cluster of KUBECONFIG is one of %[1]s, and the program %[1]s, which loads images into it, is not on the PATH", loader[0])
	}
	return target{kind: loader[0], loader: loader}, nil
}
