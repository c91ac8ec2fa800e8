package packaging

import (
	"os"
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
