package runtime

import (
	"maps"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// TestSecretLogOptions: they are beside those of the spec, which stays as it is.
func TestSecretLogOptions(t *testing.T) {
	c := &agentapi.ContainerSpec{Log: &agentapi.LogConfiguration{Driver: "json-file", Options: map[string]string{"max-file": "2"}}}
	s := Secrets{LogOptions: map[string]string{"max-size": "1m"}}
	if got := s.Log(c); got.Driver != "json-file" || !maps.Equal(got.Options, map[string]string{"max-file": "2", "max-size": "1m"}) || len(c.Log.Options) != 1 {
		t.Errorf("got %v of %v", got, c.Log)
	}
	if got := (Secrets{}).Log(c); got != c.Log {
		t.Errorf("without secrets: %v", got)
	}
	if got := s.Log(&agentapi.ContainerSpec{}); got != nil {
		t.Errorf("without a configuration: %v", got)
	}
}
