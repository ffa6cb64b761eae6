package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func TestGPUsOfAHost(t *testing.T) {
	root := t.TempDir()
	dev, proc := filepath.Join(root, "dev"), filepath.Join(root, "proc")
	for name, text := range map[string]string{
		"dev/nvidia0": "", "dev/nvidia10": "", "dev/nvidia2": "", "dev/nvidiactl": "", "dev/nvidia-uvm": "",
		"proc/0000:00:1e.0/information": "Model: \t\t Tesla T4\nGPU UUID: \t GPU-1f\nBus Location: \t 0000:00:1e.0\nDevice Minor: \t 2\n",
		"proc/0000:00:1f.0/information": "GPU UUID: \t GPU-????????\nDevice Minor: \t 10\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := []GPU{{"0", dev + "/nvidia0"}, {"GPU-1f", dev + "/nvidia2"}, {"10", dev + "/nvidia10"}}
	for said, want := range map[string][]GPU{
		"auto": found, "": nil, "0": found[:0], "2": found[:2], "4": append(slices.Clone(found), GPU{ID: "3"}),
		"a=/dev/dri/renderD128,b": {{"a", "/dev/dri/renderD128"}, {ID: "b"}},
	} {
		got, err := gpusOf(said, dev, proc)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", said, err, diff)
		}
	}
	for _, wrong := range []string{"a,a", "a=x", "a b", ",", "257", strings.Repeat("x,", 300)} {
		if got, err := gpusOf(wrong, dev, proc); err == nil {
			t.Errorf("%q is taken for %v", wrong, got)
		}
	}
}

func TestGPUsReachTheirContainer(t *testing.T) {
	driver := fake.New(fake.Config{})
	h := connectHost(t, Config{Dir: t.TempDir(), Driver: driver, GPUs: []GPU{{ID: "GPU-a", Device: "/dev/null"}, {ID: "GPU-b", Device: "/dev/zero"}, {ID: "GPU-c"}}}, "i1")
	h.hello()
	as := assignment(taskA, 1, run, "train", "side")
	as.Spec.Containers[0].Gpus = []string{"GPU-b", "GPU-c"}
	h.send(1, true, nil, as)
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	tasks, err := driver.Recover(t.Context())
	if err != nil || len(tasks) != 1 {
		t.Fatal(tasks, err)
	}
	train, side := tasks[0].Task.Spec.Containers[0], tasks[0].Task.Spec.Containers[1]
	if got := train.Environment["NVIDIA_VISIBLE_DEVICES"]; got != "GPU-b,GPU-c" {
		t.Errorf("NVIDIA_VISIBLE_DEVICES is %q", got)
	}
	if len(train.Devices) != 1 || train.Devices[0].HostPath != "/dev/zero" || train.Devices[0].Access != "rw" {
		t.Errorf("devices: %v", train.Devices)
	}
	if _, told := side.Environment["NVIDIA_VISIBLE_DEVICES"]; told || len(side.Devices) > 0 {
		t.Errorf("the other container has %v, %v", side.Environment, side.Devices)
	}

	// One that was taken away between placement and start.
	const taskB = "fedcba9876543210fedcba9876543210"
	as = assignment(taskB, 1, run, "train")
	as.Spec.Containers[0].Gpus = []string{"GPU-d"}
	h.send(2, false, nil, as)
	if st := h.untilState(taskB, agentapi.TaskState_STOPPED); st.StoppedReason != "ResourceInitializationError: GPU GPU-d of container a is not on this host any more" {
		t.Errorf("stopped: %s", st.StoppedReason)
	}
}
