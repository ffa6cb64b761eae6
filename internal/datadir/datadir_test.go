package datadir_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "data")
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.ID()) != 16 || len(d.SealingKey()) != 32 || d.Path() != path || d.State("main") != filepath.Join(path, "state", "main") {
		t.Errorf("id %q, key of %d bytes, path %s", d.ID(), len(d.SealingKey()), d.Path())
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "keys": 0o700, "keys/sealing": 0o600} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}

	var locked *datadir.LockedError
	if _, err := datadir.Open(path); !errors.As(err, &locked) || locked.PID != strconv.Itoa(os.Getpid()) {
		t.Fatalf("second open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ID() != d.ID() || !bytes.Equal(again.SealingKey(), d.SealingKey()) {
		t.Error("id or key changed")
	}
}

func TestRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"newer format":  {map[string]string{"FORMAT": "neargate data 2\nid 0123456789abcdef\n"}, "written by another version"},
		"no id":         {map[string]string{"FORMAT": "neargate data 1\n"}, "no id"},
		"no key":        {map[string]string{"FORMAT": "neargate data 1\nid 0123456789abcdef\n"}, "sealing key"},
		"broken key":    {map[string]string{"FORMAT": "neargate data 1\nid 0123456789abcdef\n", "keys/sealing": "short"}, "has 5 bytes"},
		"foreign files": {map[string]string{"thesis.tex": "\\documentclass"}, "thesis.tex"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			for f, text := range c.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(path, f)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(path, f), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := datadir.Open(path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if text, ok := c.files["FORMAT"]; ok {
				if now, _ := os.ReadFile(filepath.Join(path, "FORMAT")); string(now) != text {
					t.Error("FORMAT was changed")
				}
			}
		})
	}
}

// A crash while the directory was made leaves keys without FORMAT.
func TestMadeHalf(t *testing.T) {
	path := t.TempDir()
	if err := os.MkdirAll(filepath.Join(path, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "FORMAT.new"), []byte("neargate"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}
