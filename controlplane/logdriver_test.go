package controlplane

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// TestDefaultLogDriverMode: the account's choice is for those whose options say nothing.
func TestDefaultLogDriverMode(t *testing.T) {
	container := func(name, driver string, options map[string]string) types.ContainerDefinition {
		return types.ContainerDefinition{Name: aws.String(name), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriver(driver), Options: options}}
	}
	d := &TaskDefinition{DefinitionJson: []byte(EncodeShape(types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{
		container("plain", "awslogs", map[string]string{"awslogs-group": "g"}), container("own", "syslog", map[string]string{"mode": "non-blocking"}),
		container("buffered", "fluentd", map[string]string{"max-buffer-size": "1m"}), container("bare", "json-file", nil), container("none", "none", nil),
		{Name: aws.String("without")},
	}}))}
	store := statetest.New(t, Schema...)
	task := &Task{Account: "000000000000", Region: "us-east-1"}
	modes := func() map[string]string {
		spec, _, err := RenderTaskSpec(task, d, nil)
		if err != nil {
			t.Fatal(err)
		}
		SetLogMode(store.View(), task, spec)
		m := map[string]string{}
		for _, c := range spec.Containers {
			m[c.Name] = c.GetLog().GetOptions()["mode"]
		}
		return m
	}
	if m := modes(); m["plain"] != "" || m["own"] != "non-blocking" {
		t.Errorf("without a choice: %v", m)
	}
	if _, err := store.Update(t.Context(), func(tx *state.Tx) error {
		AccountSettings.Put(tx, &AccountSetting{Account: "000000000000", Region: "us-east-1", Principal: "arn:aws:iam::000000000000:root",
			Name: string(types.SettingNameDefaultLogDriverMode), Value: "blocking"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if m := modes(); m["plain"] != "blocking" || m["own"] != "non-blocking" || m["buffered"] != "" || m["bare"] != "blocking" || m["none"] != "" || m["without"] != "" {
		t.Errorf("with blocking: %v", m)
	}
	task.Region = "eu-west-1"
	if m := modes(); m["plain"] != "" {
		t.Errorf("elsewhere: %v", m)
	}
}
