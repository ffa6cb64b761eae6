package runtimetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// volume looks at bind mounts, task volumes and shared volumes.
func (s *suite) volume(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	task := func(v *agentapi.VolumeSpec, readOnly bool, words ...string) (runtime.Exit, string) {
		t.Helper()
		c := command(words...)
		c.Image, c.Mounts = h.Image, []*agentapi.MountPoint{{Volume: v.Name, ContainerPath: "/data", ReadOnly: readOnly}}
		task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "none", Volumes: []*agentapi.VolumeSpec{v}, Containers: []*agentapi.ContainerSpec{c}}}
		h.create(task)
		h.start(task, "main")
		e, out := h.wait(task, "main"), h.output(task, "main")
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Error(err)
		}
		return e, out
	}

	t.Run("Bind", func(t *testing.T) {
		dir := t.TempDir()
		v := &agentapi.VolumeSpec{Name: "v", HostPath: dir}
		if e, out := task(v, false, "write", "/data/x", "from the container"); e.Code != 0 {
			t.Fatalf("%+v %q", e, out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "x")); string(b) != "from the container\n" {
			t.Errorf("%q, %v", b, err)
		}
		if e, out := task(v, true, "cat", "/data/x", "then", "write", "/data/x", "y"); e.Code == 0 || !strings.Contains(out, "from the container\n") {
			t.Errorf("read-only: %+v %q", e, out)
		}
	})
	t.Run("LocalBind", func(t *testing.T) {
		dir := t.TempDir()
		v := &agentapi.VolumeSpec{Name: "v", Scope: "shared", DriverOptions: map[string]string{"type": "none", "device": dir, "o": "bind"}}
		// As any volume of the driver it first gets what the image has there.
		if e, out := task(v, false, "write", "/data/x", "from the container", "then", "cat", "/data/from-image"); e.Code != 0 || out != "image\n" {
			t.Fatalf("%+v %q", e, out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "x")); string(b) != "from the container\n" {
			t.Errorf("%q, %v", b, err)
		}
		gone := &agentapi.VolumeSpec{Name: "gone", DriverOptions: map[string]string{"type": "none", "device": filepath.Join(dir, "gone"), "o": "bind"}}
		c := command("wait")
		c.Image, c.Mounts = h.Image, []*agentapi.MountPoint{{Volume: "gone", ContainerPath: "/data"}}
		lost := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "none", Volumes: []*agentapi.VolumeSpec{gone}, Containers: []*agentapi.ContainerSpec{c}}}
		_, err := h.Create(ctx, lost)
		if err == nil { // Docker notices when it mounts
			_, err = h.Start(ctx, lost.ID, "main")
		}
		if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("a folder that is not there: %v", err)
		}
		if err := h.Remove(ctx, lost.ID); err != nil {
			t.Error(err)
		}
	})
	t.Run("LocalTmpfs", func(t *testing.T) {
		v := &agentapi.VolumeSpec{Name: "memory", Scope: "task", DriverOptions: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=2m,noexec"}}
		if e, out := task(v, false, "fill", "/data/x", "5"); e.Code != 0 || !strings.Contains(out, "no space left on device") {
			t.Errorf("%+v %q", e, out)
		}
	})
	t.Run("Shared", func(t *testing.T) {
		v := &agentapi.VolumeSpec{Name: "kept", Scope: "shared"}
		if e, out := task(v, false, "write", "/data/x", "first"); e.Code != 0 {
			t.Fatalf("%+v %q", e, out)
		}
		if e, out := task(v, false, "cat", "/data/x"); e.Code != 0 || out != "first\n" {
			t.Errorf("%+v %q", e, out)
		}
	})
	t.Run("TaskScoped", func(t *testing.T) {
		v := &agentapi.VolumeSpec{Name: "gone", Scope: "task"}
		if e, out := task(v, false, "write", "/data/x", "first"); e.Code != 0 {
			t.Fatalf("%+v %q", e, out)
		}
		if e, _ := task(v, false, "cat", "/data/x"); e.Code == 0 {
			t.Error("a task's volume outlived it")
		}
		// An empty volume starts with what the image has at its place.
		if _, out := task(v, false, "cat", "/data/from-image"); out != "image\n" {
			t.Errorf("image content: %q", out)
		}
	})
	t.Run("BetweenContainers", func(t *testing.T) {
		writer, reader := command("write", "/data/x", "shared"), command("cat", "/in/x")
		writer.Name, reader.Name = "writer", "reader"
		writer.Mounts = []*agentapi.MountPoint{{Volume: "v", ContainerPath: "/data"}}
		reader.Mounts = []*agentapi.MountPoint{{Volume: "v", ContainerPath: "/in", ReadOnly: true}}
		writer.Image, reader.Image = h.Image, h.Image
		task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "none", Volumes: []*agentapi.VolumeSpec{{Name: "v", Scope: "task"}},
			Containers: []*agentapi.ContainerSpec{writer, reader}}}
		h.create(task)
		h.start(task, "writer")
		h.wait(task, "writer")
		h.start(task, "reader")
		h.wait(task, "reader")
		if out := h.output(task, "reader"); out != "shared\n" {
			t.Errorf("output %q", out)
		}
	})
}
