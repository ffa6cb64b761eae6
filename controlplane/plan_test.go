package controlplane

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"
)

// What is rendered by plans that are kept is what is rendered anew, whatever was rendered, and changed, before.
func TestPlansRenderAsAnew(t *testing.T) {
	var plans Plans
	for revision := range uint32(maxPlans + 2) {
		d := &TaskDefinition{Account: "1", Region: "r", Family: "web", Revision: revision, DefinitionJson: []byte(`{"networkMode":"awsvpc","containerDefinitions":[
			{"name":"web","image":"nginx","command":["a"],"environment":[{"name":"A","value":"b"}],"dependsOn":[{"containerName":"log","condition":"START"}],
			 "logConfiguration":{"logDriver":"awsfirelens","options":{"Name":"x","log-driver-buffer-limit":"1"}},"dockerLabels":{"l":"1"}},
			{"name":"log","image":"fluent","firelensConfiguration":{"type":"fluentbit"}}]}`)}
		for _, id := range []string{"0123", "4567", "89ab"} {
			task := &Task{Account: "1", Region: "r", Cluster: "c", Id: id, OverridesJson: `{"containerOverrides":[{"name":"web","environment":[{"name":"A","value":"` + id + `"}]}]}`}
			got, _, err := plans.Render(task, d, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, _, err := RenderTaskSpec(task, proto.CloneOf(d), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("revision %d, task %s: %s", revision, id, diff)
			}
			for _, c := range got.Containers { // as the dispatcher does
				c.RegistryUser, c.Gpus = id, []string{id}
			}
		}
	}
	if len(plans.kept) > maxPlans {
		t.Errorf("%d are kept", len(plans.kept))
	}
}
