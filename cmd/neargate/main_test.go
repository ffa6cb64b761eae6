package main

import (
	"io"
	"strings"
	"testing"
)

func TestUnknownCommands(t *testing.T) {
	for _, args := range []string{"nonsense", "operator nonsense", "operator nonsense --endpoint http://127.0.0.1:1", "operator snapshot nonsense", "events nonsense", "operator token nonsense"} {
		cmd := root()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetOut(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), `unknown command "nonsense"`) {
			t.Errorf("neargate %s: %v", args, err)
		}
	}
	var help strings.Builder
	cmd := root()
	cmd.SetArgs([]string{"operator"})
	cmd.SetOut(&help)
	if err := cmd.Execute(); err != nil || !strings.Contains(help.String(), "snapshot") {
		t.Errorf("neargate operator: %v, %s", err, help.String())
	}
}
