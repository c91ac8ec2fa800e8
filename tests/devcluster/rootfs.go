// Root file systems for images from programs of this machine: the programs, the libraries that
// they are linked with, and the few files that a non-root user on a read-only root needs.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeRootfs puts programs (PATH or PATH:PLACE) and their libraries under a directory.
func makeRootfs(root string, programs []string) error {
	for _, spec := range programs {
		program, place, placed := strings.Cut(spec, ":")
		if !placed {
			place = "/usr/bin/" + filepath.Base(program)
		}
		if !filepath.IsAbs(place) {
			return fmt.Errorf("%s: the place in the image must be an absolute path", spec)
		}
		if err := copyProgram(program, filepath.Join(root, place)); err != nil {
			return err
		}
		libraries, err := librariesOf(program)
		if err != nil {
			return err
		}
		for _, library := range libraries {
			if err := copyProgram(library, filepath.Join(root, library)); err != nil {
				return err
			}
		}
	}
	files := map[string]string{
		"etc/passwd":        "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n",
		"etc/group":         "root:x:0:\nnonroot:x:65532:\n",
		"etc/nsswitch.conf": "hosts: files dns\n",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := writeFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	temporary := filepath.Join(root, "tmp")
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return err
	}
	return os.Chmod(temporary, 0o777|os.ModeSticky)
}

// librariesOf asks the dynamic linker; a static program has none.
func librariesOf(program string) ([]string, error) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	text := string(out)
	if strings.Contains(text, "not a dynamic executable") || strings.Contains(text, "statically linked") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, strings.TrimSpace(text))
	}
	var libraries []string
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s needs a library that is not on this machine: %s", program, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if filepath.IsAbs(word) {
				libraries = append(libraries, word)
				break
			}
		}
	}
	return libraries, nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	return writeProgram(to, in)
}

// writeProgram makes an executable file of what is read.
func writeProgram(to string, in io.Reader) error {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
