package ecs

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// fireLensDefinition has an app and its router.
func fireLensDefinition() *ecs.RegisterTaskDefinitionInput {
	return &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ExecutionRoleArn: aws.String("arn:aws:iam::000000000000:role/r"), ContainerDefinitions: []types.ContainerDefinition{
		{Name: aws.String("app"), Image: aws.String("app"), Memory: aws.Int32(64), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwsfirelens,
			Options:       map[string]string{"Name": "datadog", "Host": "h", "log-driver-buffer-limit": "2097152"},
			SecretOptions: []types.Secret{{Name: aws.String("apikey"), ValueFrom: aws.String("/p")}}}},
		{Name: aws.String("router"), Image: aws.String("router"), Memory: aws.Int32(64), FirelensConfiguration: &types.FirelensConfiguration{Type: types.FirelensConfigurationTypeFluentbit,
			Options: map[string]string{"enable-ecs-log-metadata": "true", "config-file-type": "file", "config-file-value": "/x.conf"}}},
	}}
}

// TestFireLens: definitions with a router are checked as ECS does.
func TestFireLens(t *testing.T) {
	type definitions = []types.ContainerDefinition
	for name, c := range map[string]struct {
		change func(d definitions)
		want   string
	}{
		"whole": {func(d definitions) {}, ""},
		"no options": {func(d definitions) {
			d[0].LogConfiguration.Options, d[0].LogConfiguration.SecretOptions = nil, nil
			d[1].FirelensConfiguration.Options = nil
		}, ""},
		"no router": {func(d definitions) { d[1].FirelensConfiguration = nil },
			"When awsfirelens log driver is specified in log configuration, a firelens configuration object must be configured in one of the containers."},
		"nobody sends": {func(d definitions) { d[0].LogConfiguration = nil },
			"When a firelensConfiguration object is specified, at least one container has to be configured with the awsfirelens log driver."},
		"two routers":     {func(d definitions) { d[0].FirelensConfiguration = d[1].FirelensConfiguration }, "At most one container"},
		"unknown type":    {func(d definitions) { d[1].FirelensConfiguration.Type = "vector" }, "the type must be fluentd or fluentbit, not 'vector'"},
		"no type":         {func(d definitions) { d[1].FirelensConfiguration.Type = "" }, "the type must be fluentd or fluentbit"},
		"unknown option":  {func(d definitions) { d[1].FirelensConfiguration.Options["x"] = "y" }, "unknown options: x"},
		"metadata":        {func(d definitions) { d[1].FirelensConfiguration.Options["enable-ecs-log-metadata"] = "perhaps" }, "enable-ecs-log-metadata must be true or false, not 'perhaps'"},
		"file in S3":      {func(d definitions) { d[1].FirelensConfiguration.Options["config-file-type"] = "s3" }, "'containerDefinitions[router].firelensConfiguration.options.config-file-type' is not supported by this platform with the value s3"},
		"file elsewhere":  {func(d definitions) { d[1].FirelensConfiguration.Options["config-file-type"] = "ftp" }, "must be file or s3, not 'ftp'"},
		"type alone":      {func(d definitions) { delete(d[1].FirelensConfiguration.Options, "config-file-value") }, "must be specified together"},
		"file alone":      {func(d definitions) { delete(d[1].FirelensConfiguration.Options, "config-file-type") }, "must be specified together"},
		"file of lines":   {func(d definitions) { d[1].FirelensConfiguration.Options["config-file-value"] = "/x\n[OUTPUT]" }, "must be one line"},
		"no plugin":       {func(d definitions) { delete(d[0].LogConfiguration.Options, "Name") }, "missing output key Name which is required for firelens configuration of type fluentbit"},
		"other's plugin":  {func(d definitions) { d[1].FirelensConfiguration.Type = "fluentd" }, "missing output key @type"},
		"buffer of words": {func(d definitions) { d[0].LogConfiguration.Options["log-driver-buffer-limit"] = "2m" }, "'log-driver-buffer-limit'"},
		"too large":       {func(d definitions) { d[0].LogConfiguration.Options["log-driver-buffer-limit"] = "536870913" }, "'log-driver-buffer-limit'"},
		"option of lines": {func(d definitions) { d[0].LogConfiguration.Options["Host"] = "h\n[OUTPUT]" }, "must be one line each"},
		"secret buffer": {func(d definitions) {
			d[0].LogConfiguration.SecretOptions[0].Name = aws.String("log-driver-buffer-limit")
			delete(d[0].LogConfiguration.Options, "log-driver-buffer-limit")
		}, "can not be secret"},
		"secret and plain": {func(d definitions) { d[0].LogConfiguration.Options["apikey"] = "x" }, "is secret and plain"},
	} {
		in := fireLensDefinition()
		c.change(in.ContainerDefinitions)
		p := newPlatform(t)
		_, err := p.registerTaskDefinition(p.ctx(), in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	p := newPlatform(t)
	got := must(p, p.registerTaskDefinition, fireLensDefinition()).TaskDefinition
	for _, want := range []string{"com.amazonaws.ecs.capability.logging-driver.awsfirelens", "ecs.capability.firelens.fluentbit",
		"ecs.capability.firelens.options.config.file", "ecs.capability.logging-driver.secrets"} {
		if !slices.ContainsFunc(got.RequiresAttributes, func(a types.Attribute) bool { return *a.Name == want }) {
			t.Errorf("attribute %s is not required", want)
		}
	}
	fargate := fireLensDefinition()
	fargate.NetworkMode, fargate.RequiresCompatibilities = types.NetworkModeAwsvpc, []types.Compatibility{types.CompatibilityFargate}
	fargate.Cpu, fargate.Memory = aws.String("256"), aws.String("512")
	must(p, p.registerTaskDefinition, fargate)
}
