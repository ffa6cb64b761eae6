package e2e

import (
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
)

// ready asks whether the platform is ready, and wants this answer.
func (p *platform) ready(status int, word string) {
	p.t.Helper()
	r, err := http.Get(p.endpoint + "/readyz?verbose")
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || r.StatusCode != status || !strings.Contains(string(b), word) {
		p.t.Errorf("readyz: %s %s, %v", r.Status, b, err)
	}
}

// TestStateInEtcd runs the whole platform with its state in an etcd: what was made is there after a stop and after a crash, what runs goes
// on, and nobody else can take the place of its data directory.
func TestStateInEtcd(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	server := etcdtest.Start(t)
	p := &platform{t: t, driver: "fake", data: t.TempDir(), args: []string{"--state", "etcd", "--etcd-endpoints", server.Endpoint, "--etcd-prefix", "/team/a"}}
	p.begin()
	p.aws(nil, "ecs", "register-task-definition", "--family", "web", "--container-definitions", `[{"name":"main","image":"example.com/web:1","memory":64}]`)
	p.aws(nil, "ecs", "create-service", "--cluster", "default", "--service-name", "web", "--task-definition", "web", "--desired-count", "3")
	steady := func() {
		t.Helper()
		p.aws(nil, "ecs", "wait", "services-stable", "--services", "web")
		if got := p.text("services[0].[status,desiredCount,runningCount]", "ecs", "describe-services", "--services", "web"); got != "ACTIVE\t3\t3" {
			t.Errorf("the service is %q", got)
		}
	}
	steady()
	created := p.text("services[0].createdAt", "ecs", "describe-services", "--services", "web")

	p.stop()
	p.run()
	steady()
	p.cmd.Process.Kill()
	<-p.done
	p.run()
	steady()
	if again := p.text("services[0].createdAt", "ecs", "describe-services", "--services", "web"); again != created {
		t.Errorf("created at %s, and at %s before", again, created)
	}

	// Etcd's quota is used up: nothing can be changed, which is said; what is there can be read.
	p.ready(http.StatusOK, "etcd")
	server.QuotaAlarm(true)
	p.ready(http.StatusServiceUnavailable, "etcdctl alarm disarm")
	once := p.as("us-east-1", "test", "test")
	once.extra = append(once.extra, "AWS_MAX_ATTEMPTS=1")
	once.refused("An error occurred (ServiceUnavailable) when calling the CreateCluster operation (reached max retries: 0): Nothing is written just now: etcd's quota is used up (alarm NOSPACE): "+
		"compact and defragment it or raise --quota-backend-bytes, then run etcdctl alarm disarm. Please try again.",
		"ecs", "create-cluster", "--cluster-name", "other")
	steady()
	server.QuotaAlarm(false)
	p.aws(nil, "ecs", "create-cluster", "--cluster-name", "other")
	p.ready(http.StatusOK, "etcd")

	other := &platform{t: t, driver: "fake", data: t.TempDir(), args: slices.Concat(p.args[:4], []string{"--etcd-prefix", "/team/b"})}
	other.begin()
	if got := other.text("serviceArns", "ecs", "list-services"); got != "" {
		t.Errorf("another installation on the same etcd sees %s", got)
	}
	other.stop()
	p.stop()
	for _, c := range []struct {
		what, data string
		args       []string
		want       string
	}{
		{"another directory on this prefix", t.TempDir(), p.args, "holds the state of another installation"},
		{"this directory without etcd", p.data, nil, "is in etcd, below /team/a: start with --state etcd"},
		{"this directory on another prefix", p.data, other.args, "give --etcd-prefix /team/a"},
		{"no etcd there", t.TempDir(), []string{"--state", "etcd", "--etcd-endpoints", "127.0.0.1:1"}, "connection refused"},
		{"no endpoints", t.TempDir(), []string{"--state", "etcd"}, "--state etcd needs --etcd-endpoints"},
		{"endpoints of what is not asked", t.TempDir(), []string{"--etcd-endpoints", server.Endpoint}, "--etcd-endpoints goes with --state etcd"},
	} {
		cmd := exec.Command(binary, append([]string{"dev", "--data", c.data, "--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--runtime", "fake"}, c.args...)...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v\n%s", c.what, err, out)
		}
	}
}
