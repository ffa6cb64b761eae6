package controlplane

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestParseSecretRef(t *testing.T) {
	const secret = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:app/db-AbCdEf"
	for from, want := range map[string]SecretRef{
		"/app/key": {Parameter: "/app/key"},
		"key":      {Parameter: "key"},
		"arn:aws:ssm:eu-west-1:000000000000:parameter/app/key": {Parameter: "arn:aws:ssm:eu-west-1:000000000000:parameter/app/key", Region: "eu-west-1"},
		secret:               {Secret: secret, Region: "eu-west-1"},
		secret + ":k::":      {Secret: secret, Region: "eu-west-1", JSONKey: "k"},
		secret + ":k:STAGE:": {Secret: secret, Region: "eu-west-1", JSONKey: "k", VersionStage: "STAGE"},
		secret + ":::id":     {Secret: secret, Region: "eu-west-1", VersionID: "id"},
	} {
		if got, err := ParseSecretRef(from); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", from, got, err, want)
		}
	}
	for _, bad := range []string{"", "a b", "a:1", strings.Repeat("a", 2049), secret + ":k", secret + ":a:b:c:d", "arn:aws:ssm:eu-west-1:000000000000:document/x", "arn:aws:secretsmanager:eu-west-1:000000000000:other:x", "arn:x"} {
		if got, err := ParseSecretRef(bad); err == nil {
			t.Errorf("%.80s is read as %+v", bad, got)
		}
	}
}

func TestParseObjectARN(t *testing.T) {
	if bucket, key, err := ParseObjectARN("arn:aws:s3:::my.bucket-1/a/b .env"); err != nil || bucket != "my.bucket-1" || key != "a/b .env" {
		t.Errorf("%q, %q, %v", bucket, key, err)
	}
	for _, bad := range []string{"s3://bucket/key", "arn:aws:s3:::bucket", "arn:aws:s3:::bucket/", "arn:aws:s3:::../key", "arn:aws:s3:::bucket/../other/key", "arn:aws:s3:::bucket/a/.", "arn:aws:sqs:::bucket/key"} {
		if bucket, key, err := ParseObjectARN(bad); err == nil {
			t.Errorf("%s is read as %s, %s", bad, bucket, key)
		}
	}
}

func TestCheckSecretFiles(t *testing.T) {
	for dir, ok := range map[string]bool{"/run/secrets": true, "/etc/app": true, "": false, "/": false, "run": false, "/a/../b": false, "/a/": false, "/proc/x": false, "/sys": false, "/development": true} {
		c := types.ContainerDefinition{DockerLabels: map[string]string{SecretFilesLabel: dir}, Secrets: []types.Secret{{Name: new("a.conf")}}}
		if err := CheckSecretFiles(c); (err == nil) != ok {
			t.Errorf("%q: %v", dir, err)
		}
	}
	for _, name := range []string{"..", ".", "a/b", strings.Repeat("x", 256)} {
		c := types.ContainerDefinition{DockerLabels: map[string]string{SecretFilesLabel: "/run/secrets"}, Secrets: []types.Secret{{Name: &name}}}
		if CheckSecretFiles(c) == nil {
			t.Errorf("a file may be called %.20s", name)
		}
		if c.DockerLabels = nil; CheckSecretFiles(c) != nil {
			t.Errorf("a variable may not be called %.20s", name)
		}
	}
}
