// Container images written by hand: one layer of a directory (or tar), and a configuration, in
// the archive format that every tool imports. Needs no registry, no daemon and no second copy.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// imageConfig is how a container of the image starts.
type imageConfig struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
}

// writeArchive makes an archive with one image from a directory or a tar of a root file system.
func writeArchive(archive, image, source string, config imageConfig) error {
	scratch, err := os.MkdirTemp(filepath.Dir(archive), "layer")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	layer := filepath.Join(scratch, "layer.tar")
	if err := makeLayer(layer, source); err != nil {
		return err
	}
	digest, err := fileDigest(layer)
	if err != nil {
		return err
	}
	document, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config, "created": time.Unix(0, 0).UTC(),
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(document)
	configName := hex.EncodeToString(sum[:]) + ".json"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{image}, "Layers": []string{digest + ".tar"}}})
	if err != nil {
		return err
	}
	return packArchive(archive, layer, digest+".tar", map[string][]byte{configName: document, "manifest.json": manifest})
}

func packArchive(archive, layer, layerName string, documents map[string][]byte) (err error) {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	writer := tar.NewWriter(out)
	for name, data := range documents {
		if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := writer.Write(data); err != nil {
			return err
		}
	}
	in, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := writer.WriteHeader(&tar.Header{Name: layerName, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(writer, in); err != nil {
		return err
	}
	return writer.Close()
}

func makeLayer(layer, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		data, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		return os.WriteFile(layer, data, 0o600)
	}
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	if err := addTree(writer, source); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(layer, buffer.Bytes(), 0o600)
}

// addTree adds a directory, owned by root and without times: the same tree is the same image.
func addTree(writer *tar.Writer, root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Name = name
		if entry.IsDir() {
			header.Name += "/"
		}
		header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
		header.ModTime, header.AccessTime, header.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
		header.Format = tar.FormatUnknown
		if err := writer.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(writer, file)
		return err
	})
}

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// isImageArchive tells an archive of images from a tar of a root file system.
func isImageArchive(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("%s is not a tar: %w", path, err)
		}
		if name := strings.TrimPrefix(header.Name, "./"); name == "manifest.json" || name == "oci-layout" {
			return true, nil
		}
	}
}
