package ecs

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane"
)

// TestLogDriversOfSomeHosts: tasks with drivers that not every host has are placed where they are.
func TestLogDriversOfSomeHosts(t *testing.T) {
	of := func(driver types.LogDriver) types.ContainerDefinition {
		return types.ContainerDefinition{Memory: aws.Int32(64), LogConfiguration: &types.LogConfiguration{LogDriver: driver}}
	}
	def := types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{of("splunk"), of("json-file"), of("journald"), of("splunk"), {Memory: aws.Int32(64)}}}
	d, err := controlplane.DemandOf(def, types.TaskOverride{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"com.amazonaws.ecs.capability.logging-driver.journald", "com.amazonaws.ecs.capability.logging-driver.splunk"}
	if diff := cmp.Diff(want, d.Attributes); diff != "" {
		t.Error(diff)
	}
}

// TestSplunkTokenMayBeSecret, as any option: the driver has what it requires.
func TestSplunkTokenMayBeSecret(t *testing.T) {
	l := &types.LogConfiguration{LogDriver: "splunk", Options: map[string]string{"splunk-url": "https://hec:8088"},
		SecretOptions: []types.Secret{{Name: aws.String("splunk-token"), ValueFrom: aws.String("arn:aws:secretsmanager:us-east-1:000000000000:secret:token")}}}
	if err := checkLog("web", l); err != nil {
		t.Error(err)
	}
	if err := checkFargateLog(types.ContainerDefinition{LogConfiguration: l}); err != nil {
		t.Errorf("on Fargate: %v", err)
	}
	l.SecretOptions[0].Name = aws.String("splunk-index")
	if err := checkLog("web", l); err == nil {
		t.Error("without a token")
	}
}
