package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

func ecrClient(url, region string) *ecr.Client {
	return ecr.New(ecr.Options{BaseEndpoint: &url, HTTPClient: sdkhttp.New(nil), Region: region, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})})
}

// TestReplicationBetweenClusters: two whole control planes. What is pushed to one is pulled, with the same digest, from the
// other, in the region that stands for it there.
func TestReplicationBetweenClusters(t *testing.T) {
	_, there := startControlPlane(t)
	file := filepath.Join(t.TempDir(), "remotes.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"eu-far-1": {"endpoint": %q, "accessKeyId": "test", "secretAccessKey": "test"}}`, there), 0o600); err != nil {
		t.Fatal(err)
	}
	remotes, err := readRemotes(file, "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	_, here := startControlPlane(t, func(c *controlConfig) { c.remotes = remotes })

	ctx := t.Context()
	client := ecrClient(here, "us-east-1")
	if _, err := client.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("team/web")}); err != nil {
		t.Fatal(err)
	}
	rules := []types.ReplicationRule{{Destinations: []types.ReplicationDestination{{Region: new("eu-far-1"), RegistryId: new("000000000000")}, {Region: new("eu-near-1"), RegistryId: new("000000000000")}}}}
	if _, err := client.PutReplicationConfiguration(ctx, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{Rules: rules}}); err != nil {
		t.Fatal(err)
	}
	image, err := ociclient.Build(ociclient.Config{Cmd: []string{"/bin/true"}}, []ociclient.File{ociclient.Text("file", strings.Repeat("x", 1<<20))})
	if err != nil {
		t.Fatal(err)
	}
	oci := &ociclient.Client{}
	cred := ociclient.Credentials{User: "test", Password: "test"}
	digest, err := oci.Push(ctx, strings.TrimPrefix(here, "http://")+"/team/web:v1", cred, image)
	if err != nil {
		t.Fatal(err)
	}
	for {
		out, err := client.DescribeImageReplicationStatus(ctx, &ecr.DescribeImageReplicationStatusInput{RepositoryName: new("team/web"), ImageId: &types.ImageIdentifier{ImageTag: new("v1")}})
		if err != nil {
			t.Fatal(err)
		}
		done := 0
		for _, s := range out.ReplicationStatuses {
			if s.Status == types.ReplicationStatusFailed {
				t.Fatalf("%s: %s", *s.Region, *s.FailureCode)
			}
			if s.Status == types.ReplicationStatusComplete {
				done++
			}
		}
		if done == 2 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	for url, region := range map[string]string{there: "eu-far-1", here: "eu-near-1"} {
		got, err := ecrClient(url, region).DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: new("team/web")})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.ImageDetails) != 1 || *got.ImageDetails[0].ImageDigest != digest || got.ImageDetails[0].ImageTags[0] != "v1" {
			t.Errorf("%s: %+v", region, got.ImageDetails)
		}
	}
}

func TestReadRemotes(t *testing.T) {
	for text, want := range map[string]string{
		`{"far": {"endpoint": "https://x:1", "accessKeyId": "a", "secretAccessKey": "s"}}`:     "",
		`{"us-east-1": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s"}}`: "us-east-1 is this cluster's own region",
		`{"Far": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s"}}`:       `"Far" is no region's name`,
		`{"far": {"endpoint": "https://x", "accessKeyId": "a"}}`:                               "far needs accessKeyId and secretAccessKey",
		`{"far": {"endpoint": "x:1", "accessKeyId": "a", "secretAccessKey": "s"}}`:             `far: "x:1" is not a URL like https://host:port`,
		`{"far": {"accessKeyId": "a", "secretAccessKey": "s"}}`:                                `far: "" is not a URL like https://host:port`,
		`{"far": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s", "accounts": {"111111111111": {"accessKeyId": "b", "secretAccessKey": "t", "from": ["000000000000"]}}}}`: "",
		`{"far": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s", "accounts": {"111111111111": {"accessKeyId": "b", "secretAccessKey": "t"}}}}`:                           "account 111111111111 of far needs accessKeyId, secretAccessKey and from",
		`{"far": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s", "accounts": {"111111111111": {"accessKeyId": "b", "secretAccessKey": "t", "from": ["me"]}}}}`:           `"me" is no account's number`,
		`{"far": {"url": "https://x"}}`: `unknown field "url"`,
		`{"far": {"endpoint": "https://x", "accessKeyId": "a", "secretAccessKey": "s", "ca": "/x"}}`: "no such file",
	} {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readRemotes(file, "us-east-1")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := readRemotes(file, "us-east-1"); err == nil || !strings.Contains(err.Error(), "others can read it") {
			t.Errorf("a file that others can read: %v", err)
		}
	}
	if r, err := readRemotes("", "us-east-1"); r != nil || err != nil {
		t.Errorf("%v, %v", r, err)
	}
}

// TestRemoteCA: another cluster's own authority is trusted where the file says so, and not otherwise.
func TestRemoteCA(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, trusted := range []string{ca, ""} {
		file := filepath.Join(dir, "remotes.json")
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"far": {"endpoint": %q, "accessKeyId": "a", "secretAccessKey": "s", "ca": %q}}`, srv.URL, trusted), 0o600); err != nil {
			t.Fatal(err)
		}
		remotes, err := readRemotes(file, "us-east-1")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := remotes["far"].Client.Get(srv.URL)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != (trusted != "") {
			t.Errorf("with CA %q: %v", trusted, err)
		}
	}
}
