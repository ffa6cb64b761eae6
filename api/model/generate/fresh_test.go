package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTablesAreFresh makes the tables again and compares. It needs the v1 models in the module cache: `go generate
// ./api/model` brings them there.
func TestTablesAreFresh(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 400,000 lines of source")
	}
	cmd := exec.Command("go", "mod", "download", "-json", v1Module)
	cmd.Env = append(os.Environ(), "GOPROXY=off")
	if err := cmd.Run(); err != nil {
		t.Skipf("%s is not in the module cache", v1Module)
	}
	dir := t.TempDir()
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for service := range services {
		want, err := os.ReadFile(filepath.Join(dir, service+".gz"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", "tables", service+".gz"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s.gz is not what go generate makes", service)
		}
	}
}
