// PostgreSQL as the root file system of an image: Debian's server and client programs, with what they read.
package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	postgresVersion = "15"
	postgresHome    = "/usr/lib/postgresql/" + postgresVersion
	pgBouncer       = "/usr/sbin/pgbouncer"
)

var postgresTools = map[string]string{postgresHome + "/bin/postgres": "postgresql-" + postgresVersion,
	postgresHome + "/bin/psql": "postgresql-client-" + postgresVersion, "/usr/share/zoneinfo/UTC": "tzdata"}

// copyPostgres makes the root file system. A shell is among it: initdb runs the server by one; and what a backup Job of a
// user's needs.
func copyPostgres(_ program, dir string) error {
	root := filepath.Join(dir, "postgres")
	programs := []string{"/bin/dash:/bin/sh", "/bin/sleep", "/bin/mv", "/usr/bin/sha256sum", "/usr/bin/wc"}
	for _, name := range []string{"postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore", "pg_isready"} {
		programs = append(programs, postgresHome+"/bin/"+name+":"+postgresHome+"/bin/"+name)
	}
	extensions, err := filepath.Glob(postgresHome + "/lib/*.so")
	if err != nil || len(extensions) == 0 {
		return errors.New("no extensions of PostgreSQL under " + postgresHome + "/lib")
	}
	for _, extension := range extensions {
		// Just-in-time compilation would add 100 MB.
		if !strings.Contains(extension, "llvm") {
			programs = append(programs, extension+":"+extension)
		}
	}
	if err := makeRootfs(root, programs); err != nil {
		return err
	}
	for _, share := range []string{"/usr/share/postgresql/" + postgresVersion, "/usr/share/zoneinfo"} {
		if err := copyTree(share, filepath.Join(root, share)); err != nil {
			return err
		}
	}
	return nil
}

// copyPgBouncer copies the pooler, whose libraries are the system's.
func copyPgBouncer(_ program, dir string) error {
	return copyProgram(pgBouncer, filepath.Join(dir, "pgbouncer"))
}

// copyTree copies files, links followed, and directories.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		place := filepath.Join(to, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			return os.MkdirAll(place, 0o755)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return nil // a link to nowhere, or to a directory, which nobody reads
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(place, data, 0o644)
	})
}
