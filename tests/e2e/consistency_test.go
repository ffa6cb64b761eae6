package e2e

import (
	"fmt"
	"os"
	"path"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// TestVersionConsistency moves a tag while a service runs: the tasks that come later run what the first one did, unless the container does
// without; the next deployment runs what the tag means then.
func TestVersionConsistency(t *testing.T) {
	t.Parallel()
	needsNewAWS(t, "ecs", "register-task-definition", "versionConsistency")
	p := start(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
	}
	version := func(v string) (ociclient.Config, []ociclient.File) {
		return ociclient.Config{Entrypoint: []string{"/bin/sh", "-c", "echo version " + v + "; exec busybox sleep 600"}},
			[]ociclient.File{ociclient.Executable("bin/sh", busybox), ociclient.Executable("bin/busybox", busybox)}
	}
	config, files := version("old")
	image := p.push("moving", "latest", config, files...)
	for name, member := range map[string]string{"kept": "", "free": `"versionConsistency":"disabled",`} {
		p.aws(nil, "ecs", "register-task-definition", "--family", name, "--container-definitions", `[{`+member+`"name":"a","image":"`+image+`","memory":32}]`)
		p.aws(nil, "ecs", "create-service", "--service-name", name, "--task-definition", name, "--desired-count", "1")
	}
	// versions are what the tasks of a service have printed, in order.
	versions := func(service string) string {
		var all []string
		for _, task := range strings.Fields(p.text("taskArns", "ecs", "list-tasks", "--service-name", service, "--desired-status", "RUNNING")) {
			out, _, _ := p.neargate("logs", path.Base(task))
			all = append(all, strings.TrimSpace(strings.TrimPrefix(out, "version ")))
		}
		sort.Strings(all)
		return strings.Join(all, " ")
	}
	runs := func(service, want string) {
		t.Helper()
		eventually(t, time.Minute, service+" to run "+want, func() (bool, string) {
			got := versions(service)
			return got == want, fmt.Sprintf("%q", got)
		})
	}
	runs("kept", "old")
	runs("free", "old")
	p.aws(nil, "ecs", "wait", "services-stable", "--services", "kept", "free")
	config, files = version("new")
	p.pushTo(image, config, files...)
	for _, name := range []string{"kept", "free"} {
		p.aws(nil, "ecs", "update-service", "--service", name, "--desired-count", "2")
	}
	runs("kept", "old old")
	runs("free", "new old")
	p.aws(nil, "ecs", "update-service", "--service", "kept", "--force-new-deployment")
	runs("kept", "new new")
}
