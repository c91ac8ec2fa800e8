// Migration tools as root file systems of images, each with a shell: Prisma, Flyway and golang-migrate.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	prismaTools = map[string]string{"node": "nodejs", "npm": "npm"}
	flywayTools = map[string]string{"mvn": "maven", "jlink": "openjdk-17-jdk-headless"}
)

const shell = "/bin/dash:/bin/sh"

// Parts of npm packages that migrations never read: 65 of 100 MB.
var unusedByPrisma = []string{"prisma/build/query_*", "prisma/build/public", "prisma/prisma-client", "effect/src", "effect/dist/esm",
	"effect/dist/dts", "fast-check/lib/esm", ".bin"}

// copyPrisma lays it out as the Dockerfile of a Node service does: everything under /app, the command in node_modules/.bin.
func copyPrisma(p program, dir string) error {
	if err := requireTools(prismaTools); err != nil {
		return err
	}
	root := filepath.Join(dir, p.name)
	app, modules := filepath.Join(root, "app"), filepath.Join(root, "app", "node_modules")
	for _, name := range []string{"package.json", "package-lock.json", "prisma.config.ts"} {
		if err := copySource(p, name, app); err != nil {
			return err
		}
	}
	// Their install scripts would fetch native engines.
	install := exec.Command("npm", "ci", "--force", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = app
	if err := runWithProgress(install, p.name, p.cold); err != nil {
		return err
	}
	for _, pattern := range unusedByPrisma {
		found, err := filepath.Glob(filepath.Join(modules, pattern))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("%s: nothing is there to leave out: %v", pattern, err)
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	if err := removeFiles(modules, ".map", ".d.ts", ".d.mts", ".d.cts", ".md"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(modules, ".bin"), 0o755); err != nil {
		return err
	}
	command := filepath.Join(modules, ".bin", "prisma")
	if err := os.Symlink("../prisma/build/index.js", command); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(modules, "prisma", "build", "index.js"), 0o755); err != nil {
		return err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return err
	}
	return makeRootfs(root, []string{node + ":/usr/bin/node", "/usr/bin/env", shell})
}

// copyFlyway takes the jars that a migration of PostgreSQL needs, and a Java that has no more than they do.
func copyFlyway(p program, dir string) error {
	if err := requireTools(flywayTools); err != nil {
		return err
	}
	root, scratch := filepath.Join(dir, p.name), filepath.Join(dir, "scratch")
	defer os.RemoveAll(scratch)
	if err := copySource(p, "pom.xml", scratch); err != nil {
		return err
	}
	unpack := exec.Command("mvn", "-q", "-B", "-ntp", "dependency:unpack", "-DoutputDirectory="+scratch)
	unpack.Dir = scratch
	if err := runWithProgress(unpack, p.name, p.cold); err != nil {
		return err
	}
	unpacked, err := filepath.Glob(filepath.Join(scratch, "flyway-*"))
	if err != nil || len(unpacked) != 1 {
		return fmt.Errorf("unpack flyway: there are %d directories", len(unpacked))
	}
	home := filepath.Join(root, "flyway")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := os.Rename(unpacked[0], home); err != nil {
		return err
	}
	const modules = "java.base,java.sql,java.naming,java.logging,java.xml,java.management,java.net.http,java.security.jgss,jdk.unsupported"
	if err := run("jlink", "--add-modules", modules, "--strip-debug", "--no-man-pages", "--no-header-files", "--compress=2",
		"--output", filepath.Join(home, "jre")); err != nil {
		return err
	}
	// These two need all that Java wants of the system.
	programs := []string{shell}
	for _, library := range []string{"/flyway/jre/lib/libjli.so", "/flyway/jre/lib/server/libjvm.so"} {
		programs = append(programs, filepath.Join(root, library)+":"+library)
	}
	if err := makeRootfs(root, programs); err != nil {
		return err
	}
	const start = "#!/bin/sh\nexec /flyway/jre/bin/java -cp '/flyway/lib/*:/flyway/lib/flyway/*:/flyway/drivers/*' org.flywaydb.commandline.Main \"$@\"\n"
	return writeFile(filepath.Join(root, "usr", "bin", "flyway"), []byte(start), 0o755)
}

// placeGolangMigrate gives the program that was built the name by which it is called.
func placeGolangMigrate(p program, dir string) error {
	built, root := filepath.Join(dir, p.name), filepath.Join(dir, "built")
	if err := os.Rename(built, root); err != nil {
		return err
	}
	defer os.Remove(root)
	return makeRootfs(filepath.Join(dir, p.name), []string{root + ":/usr/bin/migrate", shell})
}

// copySource copies a file that stands beside a program's pins.
func copySource(p program, name, to string) error {
	source, err := sourceDir()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(source, p.module, name))
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(to, name), data, 0o644)
}

// removeFiles removes the files below a directory whose names end like this.
func removeFiles(root string, endings ...string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		for _, ending := range endings {
			if strings.HasSuffix(path, ending) {
				return os.Remove(path)
			}
		}
		return nil
	})
}
