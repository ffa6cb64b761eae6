package firelens

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the configurations in testdata")

// TestConfig: the text is that of the agent of ECS (the order of sections, their names and matches), by type and network mode.
func TestConfig(t *testing.T) {
	metadata := map[string]string{"ecs_cluster": "default", "ecs_task_arn": "arn:aws:ecs:us-east-1:000000000000:task/default/0123", "ecs_task_definition": "web:7"}
	app := Source{"app", map[string]string{"include-pattern": "^a", "exclude-pattern": "b$", "log-driver-buffer-limit": "1048576", "region": "us-east-1"}}
	bare := Source{"bare", nil}
	for file, r := range map[string]Router{
		"fluentbit-bridge.conf": {Type: FluentBit, NetworkMode: "bridge", Metadata: metadata, Include: "/extra.conf", Sources: []Source{app, bare, {"side", map[string]string{"Name": "stdout"}}}},
		"fluentbit-awsvpc.conf": {Type: FluentBit, NetworkMode: "awsvpc", Sources: []Source{app}},
		"fluentbit-host.conf":   {Type: FluentBit, NetworkMode: "host", Metadata: metadata, Sources: []Source{bare}},
		"fluentd-bridge.conf":   {Type: Fluentd, NetworkMode: "bridge", Metadata: metadata, Include: "/extra.conf", Sources: []Source{app}},
		"fluentd-none.conf":     {Type: Fluentd, NetworkMode: "none", Sources: []Source{bare}},
	} {
		app.Options[OutputKey(r.Type)] = "firehose"
		got := r.Config()
		delete(app.Options, OutputKey(r.Type))
		if *update {
			if err := os.WriteFile("testdata/"+file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

// TestCheck: options of an output without a name for it can not be written, no options at all can.
func TestCheck(t *testing.T) {
	for options, want := range map[string]string{
		"":                                "",
		"log-driver-buffer-limit":         "",
		"include-pattern":                 "",
		"Name":                            "",
		"Name region":                     "",
		"region":                          "missing output key Name which is required for firelens configuration of type fluentbit",
		"@type":                           "missing output key Name",
		"exclude-pattern delivery_stream": "container app",
	} {
		s := Source{"app", map[string]string{}}
		for _, o := range strings.Fields(options) {
			s.Options[o] = "x"
		}
		if err := s.Check(FluentBit); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", options, err, want)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	v := SecretVariable("apikey", 2)
	if got := Placeholder(FluentBit, v); got != "${apikey_2}" {
		t.Error(got)
	}
	if got := Placeholder(Fluentd, v); got != `"#{ENV['apikey_2']}"` {
		t.Error(got)
	}
}
