package main

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// The document lists what is wired, so it is made here, where everything is.
func TestOperationsDocument(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c, err := newControlPlane(controlConfig{
		dir: dir, account: "000000000000", region: "us-east-1", publicName: "127.0.0.1:4566", domain: "localhost",
		roots: []auth.Root{{Account: "000000000000", AccessKeyID: "test", SecretAccessKey: "test"}},
		ready: func() []server.Check { return nil }, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.engine.Close()
	if err := c.public.Prepare(); err != nil {
		t.Errorf("an operation does not fit its model: %v", err)
	}
	var want bytes.Buffer
	if err := server.WriteOperations(&want, c.operations, c.resources...); err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/OPERATIONS.md"
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Errorf("%s is out of date: go test ./cmd/neargate -run TestOperationsDocument -update", path)
	}
}
