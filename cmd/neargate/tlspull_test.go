package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// TestAgentPullsOverTLS: an agent trusts the registry of its cluster because it has joined it, and goes on to when the cluster's authority is exchanged.
func TestAgentPullsOverTLS(t *testing.T) {
	if lacks := native.Check(); len(lacks) > 0 {
		t.Skip("this host cannot run containers: " + strings.Join(lacks, "; "))
	}
	s := &site{t: t, serverDir: t.TempDir(), agentDir: t.TempDir()}
	t.Cleanup(func() { removeEverything(t, s.agentDir) })
	server := start(t, "server", "--data", s.serverDir, "--listen", anyPort, "--peer-listen", anyPort, "--join-token", token)
	cfg := client.Config{Region: "us-east-1", CABundle: filepath.Join(s.serverDir, "keys", "ca.pem")}
	cfg.AccessKey, cfg.SecretKey = server.says(`AWS_ACCESS_KEY_ID=(\S+)$`)[0], server.says(`AWS_SECRET_ACCESS_KEY=(\S+)$`)[0]
	m := server.says(`ready at (https://\S+) .*peers at ([^,]+),`)
	cfg.Endpoint, s.peers = m[0], m[1]
	var err error
	if s.Client, err = client.New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	s.startAgent("native", token)

	s.pullsAndRuns(t, cfg, "web")
	s.exchangeAuthority(t, cfg)
	if s.Client, err = client.New(cfg); err != nil {
		t.Fatal(err)
	}
	s.pullsAndRuns(t, cfg, "later")
}

// pullsAndRuns pushes an image to a new repository and has the agent run it.
func (s *site) pullsAndRuns(t *testing.T, cfg client.Config, name string) {
	t.Helper()
	authorities := x509.NewCertPool()
	if text, err := os.ReadFile(cfg.CABundle); err != nil || !authorities.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	repository, err := s.ECR.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name})
	if err != nil {
		t.Fatal(err)
	}
	image := *repository.Repository.RepositoryUri + ":1"
	push := ociclient.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}}
	built := ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t))
	if _, err := push.Push(t.Context(), image, ociclient.Credentials{User: cfg.AccessKey, Password: cfg.SecretKey}, built); err != nil {
		t.Fatal(err)
	}
	task, err := s.Run(t.Context(), client.Deployment{Name: name, Image: image, Cluster: "apart", Command: []string{"exit", "7"}, CPU: 256, Memory: 128})
	if err != nil {
		t.Fatal(err)
	}
	if end, err := s.WaitStopped(t.Context(), task); err != nil || end.ExitCode != 7 {
		t.Errorf("the task ended with %+v, %v", end, err)
	}
}
