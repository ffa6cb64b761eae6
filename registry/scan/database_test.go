package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func installed(ecosystem, name, version string) Package {
	return Package{Ecosystem: ecosystem, Name: name, Version: version, Source: name, Origin: version, Manager: "OS"}
}

// summary writes findings so that tests can be read.
func summary(r *Report) (out []string) {
	for _, f := range r.Findings {
		line := fmt.Sprintf("%s %s %.1f", f.ID, f.Severity, f.Score)
		for _, p := range f.Packages {
			line += fmt.Sprintf(" %s<%s", p.Name, p.FixedIn)
		}
		out = append(out, line)
	}
	return out
}

func TestDatabase(t *testing.T) {
	d := NewDatabase("testdata/osv", t.TempDir())
	defer d.Close()
	for _, c := range []struct {
		p    Package
		want []string
	}{
		{installed("Debian:12", "glibc", "2.36-9"), []string{"CVE-2023-4911 HIGH 7.8 glibc<2.36-9+deb12u3", "CVE-2010-4756 INFORMATIONAL 0.0 glibc<"}},
		{installed("Debian:12", "glibc", "2.36-9+deb12u3"), []string{"CVE-2010-4756 INFORMATIONAL 0.0 glibc<"}},
		{installed("Debian:11", "glibc", "2.31-13+deb11u6"), []string{"CVE-2023-4911 HIGH 7.8 glibc<2.31-13+deb11u7"}},
		{installed("Debian:13", "glibc", "2.36-9"), nil},
		{installed("Alpine:v3.16", "zlib", "1.2.12-r1"), []string{"CVE-2022-37434 CRITICAL 9.8 zlib<1.2.12-r2"}},
		{installed("Alpine:v3.16", "zlib", "1.2.12-r2"), nil},
		{installed("Alpine:v3.17", "zlib", "1.2.12-r1"), nil},
		{installed("Ubuntu:22.04:LTS", "openssh", "1:8.9p1-3ubuntu0.7"), []string{"CVE-2024-6387 HIGH 0.0 openssh<1:8.9p1-3ubuntu0.10"}},
		{installed("Go", "stdlib", "1.20.9"), []string{"CVE-2023-39325 UNDEFINED 0.0 stdlib<1.20.10"}},
		{installed("Go", "stdlib", "1.20.10"), nil},
		{installed("Go", "stdlib", "1.21.0-rc.2"), []string{"CVE-2023-39325 UNDEFINED 0.0 stdlib<1.21.3"}},
		{installed("Go", "stdlib", "1.21.3"), nil},
		{installed("Go", "golang.org/x/net", "0.0.0-20220127200216-cd36cc0744dd"), []string{"CVE-2023-39325 UNDEFINED 0.0 golang.org/x/net<0.17.0"}},
		{installed("Go", "github.com/dgrijalva/jwt-go", "3.2.0"), []string{"CVE-2020-26160 HIGH 7.5 github.com/dgrijalva/jwt-go<"}},
		{installed("Go", "github.com/dgrijalva/jwt-go", "3.2.1"), nil},
	} {
		r, err := d.Scan(t.Context(), Image{}, &Inventory{Packages: []Package{c.p}})
		if err != nil {
			t.Fatal(err)
		}
		if got := summary(r); !slices.Equal(got, c.want) {
			t.Errorf("%s %s %s: %q, want %q", c.p.Ecosystem, c.p.Name, c.p.Version, got, c.want)
		}
		if r.Source != "OSV" || r.Updated.Format("2006-01-02") != "2025-11-20" {
			t.Errorf("from %s of %v", r.Source, r.Updated)
		}
	}

	// Packages of one vulnerability are one finding, and findings tell where to read on.
	i := &Inventory{Packages: []Package{installed("Go", "stdlib", "1.20.9"), installed("Go", "golang.org/x/net", "0.1.0"), {Ecosystem: "Debian:12", Name: "libc6", Version: "9", Source: "glibc", Origin: "2.36-9"}}}
	r, err := d.Scan(t.Context(), Image{}, i)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(r), []string{"CVE-2023-4911 HIGH 7.8 libc6<2.36-9+deb12u3", "CVE-2010-4756 INFORMATIONAL 0.0 libc6<", "CVE-2023-39325 UNDEFINED 0.0 stdlib<1.20.10 golang.org/x/net<0.17.0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if f := r.Findings[2]; f.URL != "https://pkg.go.dev/vuln/GO-2023-2102" || !slices.Equal(f.Related, []string{"GO-2023-2102"}) || f.References[0] != "https://go.dev/issue/63417" || !strings.Contains(f.Description, "rapid reset") {
		t.Errorf("got %+v", f)
	}
	if f := r.Findings[0]; f.URL != "https://security-tracker.debian.org/tracker/CVE-2023-4911" || !strings.HasPrefix(f.Vector, "CVSS:3.1/AV:L") {
		t.Errorf("got %+v", f)
	}
}

// A changed folder is seen by the next scan, while scans of the old one go on; only the index of what is there stays, and a damaged one is made anew.
func TestDatabaseChanges(t *testing.T) {
	dir, cache := t.TempDir(), t.TempDir()
	put := func(fixed string) {
		text, err := json.Marshal(map[string]any{"id": "CVE-1-1", "affected": []any{map[string]any{"package": map[string]string{"ecosystem": "Debian:12", "name": "a"},
			"ranges": []any{map[string]any{"type": "ECOSYSTEM", "events": []any{map[string]string{"introduced": "0"}, map[string]string{"fixed": fixed}}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := NewDatabase(dir, cache)
	i := &Inventory{Packages: []Package{installed("Debian:12", "a", "1.5")}}
	found := func() int {
		t.Helper()
		r, err := d.Scan(t.Context(), Image{}, i)
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Findings)
	}
	put("1.0")
	before, err := d.Version()
	if err != nil || found() != 0 {
		t.Fatalf("found something, %v", err)
	}
	old, err := d.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put("2.00")
	if after, err := d.Version(); err != nil || after == before || found() != 1 {
		t.Errorf("the change was not seen (%v)", err)
	}
	if list, err := old.lookup("Debian:12", "a"); err != nil || len(list) != 1 || list[0].Ranges[0][1].Fixed != "1.0" {
		t.Errorf("the old index says %v, %v", list, err)
	}
	d.release(old)
	files, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v are left (%v)", files, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(files[0], 100); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if r, err := d.Scan(t.Context(), Image{}, i); err != nil || len(r.Findings) != 1 {
				t.Errorf("after damage: %v, %v", r, err)
			}
		})
	}
	all.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDatabaseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ file, content, want string }{
		"empty":        {"readme.txt", "x", "neither .json nor .zip"},
		"not JSON":     {"a.json", "{", "a.json: not a record of OSV"},
		"another JSON": {"a.json", `{"hello": "world"}`, "a.json: not a record of OSV: it has no id"},
		"not a zip":    {"all.zip", "PK", "all.zip: zip"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, cache := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := NewDatabase(dir, cache).Scan(t.Context(), Image{}, &Inventory{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
	if _, err := NewDatabase(filepath.Join(t.TempDir(), "nowhere"), t.TempDir()).Version(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzAdvisories(f *testing.F) {
	for _, name := range []string{"GO-2023-2102", "DSA-5514-1", "DEBIAN-CVE-2010-4756", "nested/GHSA-w73w-5m7g-f7qc"} {
		text, err := os.ReadFile("testdata/osv/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "1.0")
	}
	f.Fuzz(func(t *testing.T, text []byte, version string) {
		list, _, err := advisories(text)
		if err != nil {
			return
		}
		for _, a := range list {
			a.affects(version)
			if len(a.Names) == 0 || a.Severity.Rank() < 0 || len(a.Description) > maxDescription {
				t.Errorf("got %+v", a)
			}
		}
	})
}
