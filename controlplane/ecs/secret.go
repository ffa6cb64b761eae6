package ecs

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// maxEnvironmentFiles is how many a container can have.
const maxEnvironmentFiles = 10

// checkSecrets looks at what containers are started with and the definition only names. Whether it exists shows when a task starts.
func checkSecrets(def *types.TaskDefinition) error {
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		name := aws.ToString(c.Name)
		if err := controlplane.CheckSecretFiles(*c); err != nil {
			return client("Invalid 'dockerLabels' setting for container '%s': %s.", name, err)
		}
		if err := checkSecretList("secrets", name, c.Secrets); err != nil {
			return err
		}
		for _, s := range c.Secrets {
			for _, e := range c.Environment {
				if aws.ToString(e.Name) == aws.ToString(s.Name) && controlplane.SecretFiles(*c) == "" {
					return client("The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '%s'.", *s.Name)
				}
			}
		}
		if l := c.LogConfiguration; l != nil {
			if err := checkSecretOptions(name, l); err != nil {
				return err
			}
		}
		if rc := c.RepositoryCredentials; rc != nil && aws.ToString(rc.CredentialsParameter) == "" {
			return client("Invalid 'repositoryCredentials' setting for container '%s': credentialsParameter must be the name or the ARN of a secret.", name)
		}
		if err := checkEnvironmentFiles(name, c.EnvironmentFiles); err != nil {
			return err
		}
		if what := startsWith(*c); what != "" && aws.ToString(def.ExecutionRoleArn) == "" {
			return client("When you are specifying %s, you must also specify a value for 'executionRoleArn'.", what)
		}
	}
	return nil
}

// startsWith is what of the container's needs a role to be read with.
func startsWith(c types.ContainerDefinition) string {
	switch {
	case len(c.Secrets) > 0:
		return "container secrets"
	case c.RepositoryCredentials != nil:
		return "repository credentials"
	case c.LogConfiguration != nil && len(c.LogConfiguration.SecretOptions) > 0:
		return "secret options of a log driver"
	case len(c.EnvironmentFiles) > 0:
		return "environment files"
	}
	return ""
}

func checkSecretList(member, container string, list []types.Secret) error {
	seen := map[string]bool{}
	for _, s := range list {
		name := aws.ToString(s.Name)
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			return client("Invalid '%s' setting for container '%s': a secret needs a name without =.", member, container)
		case seen[name]:
			return client("Invalid '%s' setting for container '%s': duplicate secret names found: %s. Each secret name must be unique.", member, container, name)
		}
		seen[name] = true
		if _, err := controlplane.ParseSecretRef(aws.ToString(s.ValueFrom)); err != nil {
			return client("Invalid '%s' setting for container '%s': the valueFrom of secret '%s': %s.", member, container, name, err)
		}
	}
	return nil
}

// checkSecretOptions: a driver's options are the same, secret or not. Those of awslogs say where the platform's own log groups are, which it
// has to know without reading a secret.
func checkSecretOptions(container string, l *types.LogConfiguration) error {
	if err := checkSecretList("logConfiguration.secretOptions", container, l.SecretOptions); err != nil {
		return err
	}
	for _, s := range l.SecretOptions {
		_, plain := l.Options[*s.Name]
		switch {
		case l.LogDriver == types.LogDriverAwslogs:
			return client("'containerDefinitions[%s].logConfiguration.secretOptions' is not supported by this platform with log driver awslogs.", container)
		case plain:
			return client("Option '%s' in the log configuration of container '%s' is secret and plain.", *s.Name, container)
		case l.LogDriver == types.LogDriverAwsfirelens: // the router's to know
		case logOptions[l.LogDriver][*s.Name] == nil:
			return client("Log driver %s disallows options: %s", l.LogDriver, *s.Name)
		}
	}
	return nil
}

func checkEnvironmentFiles(container string, files []types.EnvironmentFile) error {
	if len(files) > maxEnvironmentFiles {
		return client("Invalid 'environmentFiles' setting for container '%s': there can be at most %d.", container, maxEnvironmentFiles)
	}
	for _, f := range files {
		if f.Type != types.EnvironmentFileTypeS3 {
			return client("Invalid 'environmentFiles' setting for container '%s': the type of a file is s3.", container)
		}
		if _, _, err := controlplane.ParseObjectARN(aws.ToString(f.Value)); err != nil {
			return client("Invalid 'environmentFiles' setting for container '%s': %s.", container, err)
		}
	}
	return nil
}

// checkFileOverrides holds files of variables of overrides to what those of definitions are held to.
func checkFileOverrides(def types.TaskDefinition, over *types.TaskOverride) error {
	if over == nil {
		return nil
	}
	for _, c := range over.ContainerOverrides {
		if err := checkEnvironmentFiles(aws.ToString(c.Name), c.EnvironmentFiles); err != nil {
			return err
		}
		if len(c.EnvironmentFiles) > 0 && aws.ToString(def.ExecutionRoleArn) == "" && aws.ToString(over.ExecutionRoleArn) == "" {
			return client("When you are specifying environment files, you must also specify a value for 'executionRoleArn'.")
		}
	}
	return nil
}
