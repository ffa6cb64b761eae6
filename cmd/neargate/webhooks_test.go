package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/client"
)

// TestTaskReachesWebhook: what a task does is posted to a webhook, by whichever server leads.
func TestTaskReachesWebhook(t *testing.T) {
	var mu sync.Mutex
	secret := ""
	bodies := map[string]string{} // by the event's id
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s", r.Header.Get("X-Neargate-Timestamp"), body)
		if got := r.Header.Get("X-Neargate-Signature"); err != nil || got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
			t.Errorf("signed %q, %v", got, err)
		}
		bodies[r.Header.Get("X-Neargate-Event-Id")] = string(body)
	}))
	t.Cleanup(hook.Close)
	s := startServers(t, 3)
	cluster := "apart"
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: &cluster}); err != nil {
		t.Fatal(err)
	}
	s.startFakeAgent(t.TempDir())
	mu.Lock()
	// Through any server: two of the three pass the request on.
	for i, one := range s.all {
		made, err := one.CreateEventWebhook(t.Context(), client.NewEventWebhook{URL: hook.URL, Pattern: `{"detail-type":["ECS Task State Change"],"detail":{"lastStatus":["RUNNING","STOPPED"]}}`, Secret: secret})
		if err != nil || len(made.Secret) != 64 {
			mu.Unlock()
			t.Fatal(made, err)
		}
		if i < 2 {
			err = s.all[2].DeleteEventWebhook(t.Context(), made.ID)
		}
		if err != nil {
			mu.Unlock()
			t.Fatal(err)
		}
		if i == 2 {
			secret = made.Secret
		}
	}
	mu.Unlock()
	arrives := func(task, status string) {
		t.Helper()
		eventually(t, func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, body := range bodies {
				if strings.Contains(body, task) && strings.Contains(body, `"lastStatus":"`+status+`"`) {
					return nil
				}
			}
			return fmt.Errorf("the webhook got %v, nothing of a task that is %s", bodies, status)
		})
	}
	task, err := s.all[0].Run(t.Context(), client.Deployment{Name: "web", Image: "registry.test/web:1", Cluster: cluster, Memory: 16, CPU: 16})
	if err != nil {
		t.Fatal(err)
	}
	arrives(task.ID, "RUNNING")
	eventually(t, func() error {
		list, err := s.all[1].EventWebhooks(t.Context())
		if err != nil || len(list) != 1 || list[0].Delivered == 0 || list[0].LastError != "" || list[0].Secret != "" {
			return fmt.Errorf("shown as %+v, %v", list, err)
		}
		return nil
	})

	cli := start(t, "events", "webhooks", "list", "--endpoint", s.all[1].url)
	cli.says(hook.URL)
	list := cli.says(`^([0-9a-f]{16}) +[1-9]`)
	cli.wait()
	cli = start(t, "events", "webhooks", "create", "http://169.254.169.254/", "--endpoint", s.all[1].url)
	cli.says("neargate: .*link-local")
	cli.wait()
	cli = start(t, "events", "webhooks", "create", "http://127.0.0.1:1/", "--pattern", `{"source":["x"]}`, "--endpoint", s.all[1].url)
	other := cli.says(`^webhook +([0-9a-f]{16})$`)
	cli.says(`^secret +[0-9a-f]{64}$`)
	cli.wait()
	if cli = start(t, "events", "webhooks", "delete", other[0], "--endpoint", s.all[1].url); cli.end(syscall.Signal(0)) != 0 || list[0] == other[0] {
		t.Errorf("delete: %s", cli.output())
	}

	leader, others := s.leader()
	before := leader.output()
	s.kill(leader)
	follower := others[0]
	eventually(t, func() error {
		_, err := follower.ECS.StopTask(t.Context(), &ecs.StopTaskInput{Cluster: &cluster, Task: &task.ID})
		return err
	})
	arrives(task.ID, "STOPPED")
	mu.Lock()
	defer mu.Unlock()
	for _, log := range []string{before, others[0].output(), others[1].output()} {
		if strings.Contains(log, secret) {
			t.Error("a server's log has the secret")
		}
	}
}
