package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

// What cannot work is said at the start, by the flag's name.
func TestImageCheckFlags(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "key")
	if err := os.WriteFile(file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags scanFlags
		want  string // what the scanner is, or what is wrong
	}{
		{scanFlags{}, "<nil>"},
		{scanFlags{database: folder}, "*scan.Database"},
		{scanFlags{command: "sh -c cat"}, "*scan.Command"},
		{scanFlags{webhook: "https://scan.example/hook"}, "*scan.Webhook"},
		{scanFlags{database: folder, command: "sh"}, "choose one of"},
		{scanFlags{database: filepath.Join(folder, "nowhere")}, "--scan-database: stat"},
		{scanFlags{database: file}, "is not a folder"},
		{scanFlags{command: " "}, "names no program"},
		{scanFlags{command: "there-is-no-such-program x"}, "--scan-command: "},
		{scanFlags{webhook: "scan.example"}, "--scan-webhook: "},
	} {
		s, err := c.flags.scanner(dir)
		got := fmt.Sprintf("%T", s)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
	for gate, ok := range map[string]bool{"": true, "high": true, "CRITICAL": true, "UNDEFINED": false, "bad": false} {
		if _, err := (&scanFlags{gate: gate}).severity(); (err == nil) != ok {
			t.Errorf("--scan-gate %q: %v", gate, err)
		}
	}
	for _, c := range []struct {
		flags signFlags
		want  string
	}{
		{signFlags{}, "<nil>"},
		{signFlags{repositories: []string{"a"}}, "--verify-repositories needs"},
		{signFlags{keys: filepath.Join(folder, "nowhere")}, "--verify-keys: open"},
		{signFlags{roots: filepath.Join(folder, "nowhere")}, "--verify-roots: open"},
		{signFlags{keys: file}, "not PEM"},
		{signFlags{roots: file}, "no certificate"},
	} {
		s, err := c.flags.signatures()
		if got := fmt.Sprint(s, err); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
	profiles := t.TempDir()
	for _, step := range []struct {
		file, want string
	}{
		{"", "there is no ACCOUNT/NAME.key"},
		{"prod.key", "--signing-profiles has no file 000000000000/prod.crt"},
		{"prod.crt", "the key is not a PRIVATE KEY"},
	} {
		if step.file != "" {
			if err := os.MkdirAll(filepath.Join(profiles, "000000000000"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(profiles, "000000000000", step.file), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := (&signFlags{profiles: profiles}).signer(); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("--signing-profiles with %q: %v, want %s", step.file, err, step.want)
		}
	}
}
