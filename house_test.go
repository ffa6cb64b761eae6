// Package neargate holds the tests of the house rules: what may import what, and how every package looks.
package neargate

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed-2f228079/neargate"

// listed is a package as `go list` describes it.
type listed struct {
	ImportPath, Name, Doc, Dir string
	Standard                   bool
	Imports, Deps              []string
}

// list runs `go list` over the whole module; names of the module's own packages come without its path.
func list(t *testing.T, args ...string) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Name,Doc,Dir,Standard,Imports,Deps"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[own(p.ImportPath)] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return packages
}

func own(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// in says whether a package of the module is one of the rooms or below one.
func in(pkg string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return pkg == r || strings.HasPrefix(pkg, r+"/") })
}

// isTestPackage says whether pkg only serves tests (statetest, runtimetest): it may import what it needs.
func isTestPackage(pkg string) bool {
	return strings.HasSuffix(path.Base(pkg), "test") || in(pkg, "internal/testcluster", "bench", "examples", "tests")
}

// families are the packages that hold operations. What stands below one belongs to it.
var families = []string{"controlplane/ecs", "controlplane/elb", "controlplane/autoscaling", "controlplane/iam", "controlplane/logs",
	"controlplane/ec2", "controlplane/ecsagent", "controlplane/events", "controlplane/execute", "controlplane/secrets", "controlplane/secretsmanager", "controlplane/ssm", "controlplane/sts", "controlplane/tasks", "registry", "servicediscovery"}

// speakHTTP are families that do so by nature: the OCI front, webhooks, data channels, an object store.
var speakHTTP = []string{"registry", "controlplane/events", "controlplane/execute", "controlplane/secrets"}

// TestImportsPointInward holds the direct imports against the map in docs/design/api.md.
func TestImportsPointInward(t *testing.T) {
	for pkg, p := range list(t, "./...") {
		if isTestPackage(pkg) {
			continue
		}
		for _, imported := range p.Imports {
			dep := own(imported)
			if reason := forbidden(pkg, imported, dep); reason != "" {
				t.Errorf("%s imports %s: %s", pkg, dep, reason)
			}
		}
	}
}

func forbidden(pkg, imported, dep string) string {
	ours := strings.HasPrefix(imported, module+"/")
	switch {
	case in(dep, "cmd") && ours:
		return "nothing imports cmd"
	case ours && in(dep, "api/server") && !in(pkg, "api/server", "cmd"):
		return "only cmd knows the server"
	case ours && isTestPackage(dep):
		return "only tests use test packages"
	case ours && in(pkg, "api") && !in(dep, "api", "internal"):
		return "api is below the families"
	case ours && in(pkg, "storage") && !in(dep, "storage", "internal"):
		return "storage knows no service"
	case ours && in(pkg, "controlplane/state") && !in(dep, "controlplane/state", "internal"):
		return "the state knows no service"
	case ours && in(pkg, "internal") && !in(dep, "internal"):
		return "internal is below everything"
	}
	for _, f := range families {
		if !in(pkg, f) || dataPlane(pkg) {
			continue
		}
		for _, other := range families {
			if ours && other != f && in(dep, other) {
				return "a family does not import another; it declares the small interface it needs"
			}
		}
		switch {
		case imported == "net/http" && !slices.Contains(speakHTTP, f):
			return "a family does not know HTTP"
		case ours && in(dep, "controlplane/state/raft", "controlplane/state/etcd", "api/wire", "api/auth", "agent"):
			return "a family knows records and operations only"
		}
	}
	for _, h := range heavy {
		if strings.HasPrefix(imported, h.dependency) && !in(pkg, h.rooms...) {
			return "this dependency lives in " + strings.Join(h.rooms, " and ")
		}
	}
	return ""
}

// heavy are the dependencies that have one importing room each.
var heavy = []struct {
	dependency string
	rooms      []string
}{
	{"github.com/gin-gonic/", []string{"api/server"}},
	{"github.com/hashicorp/raft", []string{"controlplane/state/raft"}},
	{"go.etcd.io/etcd", []string{"controlplane/state/etcd", "servicediscovery/export"}},
	{"github.com/docker/docker", []string{"agent/runtime/docker"}},
	{"github.com/opencontainers/runc", []string{"agent/runtime"}},
	{"github.com/distribution/distribution", []string{"registry"}},
	{"github.com/google/go-containerregistry", []string{"internal/ociclient"}},
	{"github.com/coder/websocket", []string{"internal/datachannel"}},
}

// dataPlane says whether pkg goes on working without a control plane and shares only api/agent with it.
func dataPlane(pkg string) bool { return in(pkg, "agent", "mesh/proxy", "servicediscovery/dns") }

// TestDataPlanesStandAlone: not even transitively.
func TestDataPlanesStandAlone(t *testing.T) {
	found := 0
	for pkg, p := range list(t, "./...") {
		if !dataPlane(pkg) || isTestPackage(pkg) {
			continue
		}
		found++
		for _, d := range p.Deps {
			if strings.HasPrefix(d, module+"/") && in(own(d), "controlplane", "api/server", "registry") {
				t.Errorf("%s depends on %s", pkg, own(d))
			}
		}
	}
	if found == 0 {
		t.Error("there is no data plane to look at")
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for pkg, p := range list(t, "./...") {
		if pkg == "" {
			continue // only this file
		}
		if want := "Package " + p.Name + " "; p.Name != "main" && !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: its package comment does not begin with %q", pkg, want)
		} else if p.Name == "main" && p.Doc == "" {
			t.Errorf("%s: there is no package comment", pkg)
		}
	}
}

// TestNoVagueNames: such names collect what belongs nowhere.
func TestNoVagueNames(t *testing.T) {
	folders := []string{"pkg", "util", "utils", "common", "models", "types", "helpers", "misc"}
	files := []string{"util.go", "utils.go", "helpers.go", "helper.go", "common.go", "types.go", "misc.go"}
	for _, file := range sources(t) {
		for dir := range strings.SplitSeq(path.Dir(file), "/") {
			if slices.Contains(folders, dir) {
				t.Errorf("%s: no folder is called %s", file, dir)
			}
		}
		if slices.Contains(files, path.Base(file)) {
			t.Errorf("%s: say what is in it", file)
		}
	}
}

func TestFormatted(t *testing.T) {
	for _, file := range sources(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(text); err != nil || string(formatted) != string(text) {
			t.Errorf("%s is not as gofmt has it (%v)", file, err)
		}
	}
}

// TestDeadCode: where a method is looked up by a name that only the running program knows, the linker must keep every exported method of every
// type: a fifth of the program, none of it called. The linker marks the functions that do so.
func TestDeadCode(t *testing.T) {
	if testing.Short() {
		t.Skip("links the program")
	}
	tags, err := os.ReadFile("scripts/tags")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"neargate", "neargate-shim"} {
		out, err := exec.Command("go", "build", "-tags", strings.TrimSpace(string(tags)), "-ldflags", "-dumpdep",
			"-o", filepath.Join(t.TempDir(), program), "./cmd/"+program).CombinedOutput()
		if err != nil {
			t.Fatalf("build %s: %v\n%.2000s", program, err, out)
		}
		if !bytes.Contains(out, []byte("main.main -> ")) {
			t.Fatalf("the linker no longer says what needs what: %.200s", out)
		}
		for line := range bytes.Lines(out) {
			if bytes.Contains(line, []byte("<ReflectMethod>")) {
				t.Errorf("%s: %s", program, line)
			}
		}
	}
}

// sources are the Go files of the module, but for testdata.
func sources(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(file string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || file != "." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case strings.HasSuffix(file, ".go"):
			out = append(out, filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d source files found", len(out))
	}
	return out
}

// The rules themselves: what they must refuse, and what they must let through.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"controlplane/ecs", module + "/controlplane/elb", false},
		{"controlplane/ecs", module + "/controlplane/state", true},
		{"controlplane/ecs", module + "/api", true},
		{"controlplane/ecs", module + "/api/server", false},
		{"controlplane/ecs", "net/http", false},
		{"controlplane/ecs", "github.com/gin-gonic/gin", false},
		{"controlplane/elb", module + "/controlplane/state/raft", false},
		{"registry", "net/http", true},
		{"registry", module + "/servicediscovery", false},
		{"servicediscovery/dns", module + "/api/agent", true},
		{"agent/runtime/native", "github.com/opencontainers/runc/libcontainer", true},
		{"agent", "github.com/opencontainers/runc/libcontainer", false},
		{"controlplane/state/raft", "github.com/hashicorp/raft", true},
		{"controlplane/state", "github.com/hashicorp/raft", false},
		{"api/wire", module + "/controlplane", false},
		{"cmd/neargate", module + "/api/server", true},
		{"internal/arn", module + "/api", false},
		{"storage/blob", module + "/registry", false},
	} {
		if reason := forbidden(c.pkg, c.imported, own(c.imported)); (reason == "") != c.ok {
			t.Errorf("%s imports %s: %q", c.pkg, c.imported, reason)
		}
	}
}
