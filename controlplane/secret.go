package controlplane

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/arn"
)

// SecretFilesLabel is an extension: a container whose dockerLabels have it gets its secrets as files of the folder that it names, each called
// like the secret, instead of as environment variables. ECS accepts any label.
const SecretFilesLabel = "neargate.secrets.files"

// SecretFiles is the folder; empty: the container gets its secrets as environment variables.
func SecretFiles(c types.ContainerDefinition) string { return c.DockerLabels[SecretFilesLabel] }

// CheckSecretFiles says what is wrong with a container's folder, or with the names of its files.
func CheckSecretFiles(c types.ContainerDefinition) error {
	dir := SecretFiles(c)
	switch {
	case c.DockerLabels == nil || dir == "" && !hasLabel(c, SecretFilesLabel):
		return nil
	case !path.IsAbs(dir), path.Clean(dir) != dir, dir == "/":
		return fmt.Errorf("the label %s must be the absolute path of a folder, not '%s'", SecretFilesLabel, dir)
	}
	for _, system := range []string{"/proc", "/sys", "/dev"} {
		if dir == system || strings.HasPrefix(dir, system+"/") {
			return fmt.Errorf("the label %s must not be a folder of the system, as '%s' is", SecretFilesLabel, dir)
		}
	}
	for _, s := range c.Secrets {
		if name := aws.ToString(s.Name); name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
			return fmt.Errorf("the secret '%s' can not be the name of a file", name)
		}
	}
	return nil
}

func hasLabel(c types.ContainerDefinition, name string) bool {
	_, ok := c.DockerLabels[name]
	return ok
}

// EnvironmentFiles are those of the container in a task: the override's instead of the definition's, if there are any.
func EnvironmentFiles(c types.ContainerDefinition, over types.ContainerOverride) []types.EnvironmentFile {
	if len(over.EnvironmentFiles) > 0 {
		return over.EnvironmentFiles
	}
	return c.EnvironmentFiles
}

// needsSecrets says whether the container is started with something that is not in its definition.
func needsSecrets(c types.ContainerDefinition, over types.ContainerOverride) bool {
	return len(c.Secrets) > 0 || c.RepositoryCredentials != nil || c.LogConfiguration != nil && len(c.LogConfiguration.SecretOptions) > 0 ||
		len(EnvironmentFiles(c, over)) > 0
}

// SecretRef is what a valueFrom names.
type SecretRef struct {
	// Secret is the ARN of a secret, without what follows it; empty: it is a parameter.
	Secret                           string
	JSONKey, VersionStage, VersionID string // of a secret; empty: its whole value, its current version
	// Parameter is the name or ARN of a parameter.
	Parameter string
	Region    string // empty: the task's
}

// ParseSecretRef reads a valueFrom: the ARN of a secret, with or without ":json-key:version-stage:version-id" behind it, or the ARN or the
// name of a parameter.
func ParseSecretRef(valueFrom string) (SecretRef, error) {
	if !arn.Is(valueFrom) {
		if valueFrom == "" || len(valueFrom) > 2048 || strings.ContainsFunc(valueFrom, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-/", c))
		}) {
			return SecretRef{}, fmt.Errorf("a parameter name can be up to 2048 characters and include the following letters and symbols: a-zA-Z0-9_.-/")
		}
		return SecretRef{Parameter: valueFrom}, nil
	}
	a, err := arn.Parse(valueFrom)
	if err != nil {
		return SecretRef{}, err
	}
	switch {
	case a.Service == "ssm" && a.Type() == "parameter" && a.Rest() != "":
		return SecretRef{Parameter: valueFrom, Region: a.Region}, nil
	case a.Service != "secretsmanager" || !strings.HasPrefix(a.Resource, "secret:"):
		return SecretRef{}, fmt.Errorf("'%s' is neither the ARN of a secret nor that of a parameter", valueFrom)
	}
	parts := strings.Split(a.Rest(), ":")
	if parts[0] == "" || len(parts) != 1 && len(parts) != 4 {
		return SecretRef{}, fmt.Errorf("unexpected ARN format with parameters when trying to retrieve ASM secret: '%s'", valueFrom)
	}
	ref := SecretRef{Secret: arn.New(a.Service, a.Region, a.Account, "secret:"+parts[0]).String(), Region: a.Region}
	if len(parts) == 4 {
		ref.JSONKey, ref.VersionStage, ref.VersionID = parts[1], parts[2], parts[3]
	}
	return ref, nil
}

// ParseObjectARN reads the ARN of an object, arn:aws:s3:::BUCKET/KEY. Names with . or .. between slashes are refused: a store may take them for
// another object's than the one that policies were asked about.
func ParseObjectARN(text string) (bucket, key string, err error) {
	a, err := arn.Parse(text)
	bucket, key, _ = strings.Cut(a.Resource, "/")
	if err != nil || a.Service != "s3" || key == "" || !bucketName.MatchString(bucket) {
		return "", "", fmt.Errorf("'%s' is not the ARN of an object (arn:aws:s3:::bucket/key)", text)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." {
			return "", "", fmt.Errorf("'%s' has . or .. for a part of its name", text)
		}
	}
	return bucket, key, nil
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
