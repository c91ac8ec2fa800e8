// Runs Argo CD's scripts as Argo CD does, over objects that the engine recorded in every phase.
package packaging

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// moment is one entry of the record: a release, and the commands that the engine follows there.
type moment struct {
	Case     string
	Object   object
	Followed map[string]struct {
		Revision *string
		Step     *int
		Plan     *string
	}
}

func recorded(t *testing.T) []moment {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "tests/packaging/argocd/recorded.json"))
	if err != nil {
		t.Fatal(err)
	}
	var moments []moment
	if err := json.Unmarshal(data, &moments); err != nil {
		t.Fatal(err)
	}
	return moments
}

// scripts are taken from the ConfigMap that a user applies.
type scripts struct {
	health, discovery string
	actions           map[string]string
}

func argoScripts(t *testing.T) scripts {
	t.Helper()
	out, err := run(nil, "kubectl", "kustomize", "deploy/argocd")
	data := parse(t, must(t, out, err))[0]["data"].(map[string]any)
	key := func(kind string) string {
		return data["resource.customizations."+kind+".servicerelease.io_ServiceRelease"].(string)
	}
	var actions struct {
		Discovery   string `json:"discovery.lua"`
		Definitions []struct {
			Name   string
			Action string `json:"action.lua"`
		}
	}
	if err := yaml.UnmarshalStrict([]byte(key("actions")), &actions); err != nil {
		t.Fatal(err)
	}
	found := scripts{health: key("health"), discovery: actions.Discovery, actions: map[string]string{}}
	for _, definition := range actions.Definitions {
		found.actions[definition.Name] = definition.Action
	}
	return found
}

// evaluate runs a script with the libraries that Argo CD leaves to customizations: base, package,
// table, and of os only the time. There are no strings, no io, no math.
func evaluate(t *testing.T, script string, obj object, result any) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.PreloadModule("os", func(state *lua.LState) int {
		clock := func(state *lua.LState) int { state.Push(lua.LNumber(1764000000)); return 1 }
		state.Push(state.SetFuncs(state.NewTable(), map[string]lua.LGFunction{"time": clock}))
		return 1
	})
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	value, err := luajson.Decode(state, text)
	if err != nil {
		t.Fatal(err)
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	text, err = luajson.Encode(state.Get(-1))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, result); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

type health struct{ Status, Message string }

func TestArgoHealthOfEveryPhase(t *testing.T) {
	want := map[string]string{
		"no-status":                    "Progressing",
		"pending":                      "Progressing",
		"stale":                        "Progressing",
		"preparing":                    "Progressing",
		"database-preflight":           "Progressing",
		"database-migrates":            "Progressing",
		"timed-pause":                  "Progressing",
		"promoting":                    "Progressing",
		"superseded":                   "Progressing",
		"rolling-back":                 "Progressing",
		"awaiting-approval":            "Suspended",
		"migration-awaits-approval":    "Suspended",
		"migrate-down-awaits-approval": "Suspended",
		"restore-awaits-approval":      "Suspended",
		"open-pause":                   "Suspended",
		"paused-by-command":            "Suspended",
		"paused-in-spec":               "Suspended",
		"failure-held":                 "Suspended",
		"blue-green-waits":             "Suspended",
		"observing":                    "Healthy",
		"observation-failed":           "Degraded",
		"first-healthy":                "Healthy",
		"healthy":                      "Healthy",
		"rolled-back":                  "Degraded",
		"undone":                       "Degraded",
		"halted":                       "Degraded",
		"invalid":                      "Degraded",
	}
	script := argoScripts(t).health
	phases := map[string]bool{}
	for _, moment := range recorded(t) {
		var got health
		evaluate(t, script, moment.Object, &got)
		if got.Status != want[moment.Case] {
			t.Errorf("%s: %s (%s), want %s", moment.Case, got.Status, got.Message, want[moment.Case])
		}
		message, _ := moment.Object.at("status", "message").(string)
		next, _ := moment.Object.at("status", "nextAction").(string)
		if moment.Case != "stale" && !(strings.Contains(got.Message, message) && strings.Contains(got.Message, next)) {
			t.Errorf("%s: the message %q does not say what the status does", moment.Case, got.Message)
		}
		if phase, ok := moment.Object.at("status", "phase").(string); ok {
			phases[phase] = true
		}
		delete(want, moment.Case)
	}
	if len(want) > 0 {
		t.Errorf("not in the record: %v", want)
	}
	for _, phase := range phasesOfTheCRD(t) {
		if !phases[phase] {
			t.Errorf("the record has no release in phase %s", phase)
		}
	}
}

// A condition of an older generation must not show the old revision's health for the new one.
func TestArgoHealthIgnoresConditionsOfAnOlderGeneration(t *testing.T) {
	script := argoScripts(t).health
	for _, moment := range recorded(t) {
		if moment.Case != "healthy" {
			continue
		}
		generation := moment.Object.at("metadata", "generation").(float64)
		moment.Object["metadata"].(map[string]any)["generation"] = generation + 1
		moment.Object["status"].(map[string]any)["observedGeneration"] = generation + 1
		var got health
		evaluate(t, script, moment.Object, &got)
		if got.Status != "Progressing" {
			t.Errorf("got %s, want Progressing", got.Status)
		}
	}
}

func phasesOfTheCRD(t *testing.T) []string {
	t.Helper()
	for _, crd := range crds(t) {
		if crd.at("spec", "names", "kind") != "ServiceRelease" {
			continue
		}
		version := object(crd.at("spec", "versions").([]any)[0].(map[string]any))
		phase := object(version.at("schema", "openAPIV3Schema", "properties", "status", "properties", "phase").(map[string]any))
		if values, ok := phase["enum"].([]any); ok {
			var phases []string
			for _, value := range values {
				phases = append(phases, value.(string))
			}
			return phases
		}
	}
	t.Fatal("the CRD does not enumerate status.phase")
	return nil
}

func TestArgoOffersWhatTheOperatorWouldFollow(t *testing.T) {
	// Followed, yet not offered: there is a button that says better what would happen.
	redundant := func(moment moment, name string) bool {
		candidate := moment.Object.at("status", "candidate") != nil
		last := moment.Object.at("status", "step", "name") == "promote"
		return name == "undo" && candidate || name == "promote-full" && last
	}
	found := argoScripts(t)
	for _, moment := range recorded(t) {
		var offered map[string]struct {
			Disabled  bool
			IconClass string
		}
		evaluate(t, found.discovery, moment.Object, &offered)
		if len(offered) != len(found.actions) {
			t.Errorf("%s: %d actions offered, %d defined", moment.Case, len(offered), len(found.actions))
		}
		for name := range found.actions {
			_, followed := moment.Followed[name]
			// What was seen is out of date: only what makes things safer may be asked for.
			if moment.Case == "stale" {
				followed = slices.Contains([]string{"abort", "pause", "resume"}, name)
			}
			want := followed && !redundant(moment, name)
			if action, ok := offered[name]; !ok || action.Disabled == want {
				t.Errorf("%s: %s is enabled: %v, but would be followed: %v", moment.Case, name, !action.Disabled, followed)
			}
		}
	}
}

type impact struct {
	Operation string
	Resource  object
}

func TestArgoActionsCreateTheCommandThatIsFollowed(t *testing.T) {
	found := argoScripts(t)
	tried := map[string]bool{}
	for _, moment := range recorded(t) {
		for name, followed := range moment.Followed {
			tried[name] = true
			command := argoCommand(t, found.actions[name], moment)
			if revision, _ := command.at("spec", "revision").(string); followed.Revision == nil && revision != "" ||
				followed.Revision != nil && revision != *followed.Revision {
				t.Errorf("%s: %s names revision %q", moment.Case, name, revision)
			}
			if step, _ := command.at("spec", "step").(float64); followed.Step == nil && step != 0 ||
				followed.Step != nil && int(step) != *followed.Step {
				t.Errorf("%s: %s names step %v", moment.Case, name, step)
			}
			if plan, _ := command.at("spec", "approval", "planHash").(string); followed.Plan == nil && plan != "" ||
				followed.Plan != nil && plan != *followed.Plan {
				t.Errorf("%s: %s approves plan %q", moment.Case, name, plan)
			}
			if command.at("spec", "full") != any(nil) != (name == "promote-full") {
				t.Errorf("%s: %s has full=%v", moment.Case, name, command.at("spec", "full"))
			}
		}
	}
	for name := range found.actions {
		if !tried[name] {
			t.Errorf("the record has no release in which %s is followed", name)
		}
	}
}

func argoCommand(t *testing.T, script string, moment moment) object {
	t.Helper()
	var impacts []impact
	evaluate(t, script, moment.Object, &impacts)
	if len(impacts) != 1 || impacts[0].Operation != "create" {
		t.Fatalf("%s: want one create, got %v", moment.Case, impacts)
	}
	return impacts[0].Resource
}

// The API server takes every command that an action creates.
func TestArgoCommandsFitTheCRD(t *testing.T) {
	found := argoScripts(t)
	for _, moment := range recorded(t) {
		for name := range moment.Followed {
			command := argoCommand(t, found.actions[name], moment)
			if err := create(t, command, "--dry-run=server"); err != nil {
				t.Errorf("%s: %s: %v", moment.Case, name, err)
			}
		}
	}
}
