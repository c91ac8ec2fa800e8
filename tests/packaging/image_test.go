package packaging

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Cargo wants the manifests of all members of the workspace, also to build one of them.
func TestTheImageIsBuiltWithEveryMemberOfTheWorkspace(t *testing.T) {
	manifest, err := os.ReadFile("../../Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)members = \[(.*?)\]`).FindSubmatch(manifest)
	if list == nil {
		t.Fatal("Cargo.toml has no members")
	}
	ignore, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, line := range strings.Fields(string(ignore)) {
		read[line] = true
	}
	for _, member := range regexp.MustCompile(`"([^"]+)"`).FindAllSubmatch(list[1], -1) {
		if name := string(member[1]); name != "." && !read["!"+name] {
			t.Errorf(".dockerignore leaves out %s, a member of the workspace", name)
		}
	}
}

// What the program calls has to be where the program runs, in the image that is shipped and in that of the tests.
func TestTheImageHasEveryProgramThatIsRunOnADatabase(t *testing.T) {
	called := map[string]bool{}
	err := filepath.WalkDir("../../src/database", func(path string, entry fs.DirEntry, err error) error {
		// astray.rs knows what commands of users look like, and calls none.
		if err != nil || entry.IsDir() || entry.Name() == "astray.rs" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`"(pg_[a-z]+|psql)"`).FindAllSubmatch(text, -1) {
			called[string(name[1])] = true
		}
		return err
	})
	if err != nil || len(called) < 2 {
		t.Fatalf("only %v are called (%v)", called, err)
	}
	for _, file := range []string{"Dockerfile", "tests/setup/up"} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for name := range called {
			if !regexp.MustCompile(`\b` + name + `\b`).Match(text) {
				t.Errorf("%s puts no %s into the image", file, name)
			}
		}
	}
}

// Whoever reads the chart's page is to know which servers the image can dump.
func TestTheChartTellsTheVersionOfTheDatabasePrograms(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	major := regexp.MustCompile(`(?m)^ARG PG_MAJOR=(\d+)$`).FindSubmatch(text)
	if major == nil {
		t.Fatal("the Dockerfile has no default of PG_MAJOR")
	}
	page, err := os.ReadFile("../../charts/service-release-operator/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if told := "pg_dump and pg_restore, of version " + string(major[1]) + " unless"; !strings.Contains(string(page), told) {
		t.Errorf("the chart's page does not say %q", told)
	}
}
