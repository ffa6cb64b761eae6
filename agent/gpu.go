package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// GPU is one of this host's.
type GPU struct {
	ID     string // NVIDIA's, where its driver tells it ("GPU-8f2c…"), else its number
	Device string // its device node; empty: there is none
}

// gpuControls are the device nodes that NVIDIA's driver has besides those of the GPUs: whoever uses one needs them, where they are.
var gpuControls = []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}

// maxGPUs bounds what a host says it has.
const maxGPUs = 256

// GPUs reads what a host's owner says of its GPUs: "auto" (those that NVIDIA's driver has made device nodes of), a number, or ID[=DEVICE],…; nothing: there are none.
func GPUs(said string) ([]GPU, error) { return gpusOf(said, "/dev", "/proc/driver/nvidia/gpus") }

func gpusOf(said, dev, proc string) ([]GPU, error) {
	if said == "" {
		return nil, nil
	}
	found, err := findGPUs(dev, proc)
	if err != nil || said == "auto" {
		return found, err
	}
	if n, err := strconv.ParseUint(said, 10, 16); err == nil {
		if n > maxGPUs {
			return nil, fmt.Errorf("%d GPUs are more than %d", n, maxGPUs)
		}
		for i := len(found); i < int(n); i++ {
			found = append(found, GPU{ID: strconv.Itoa(i)})
		}
		return found[:n], nil
	}
	var list []GPU
	for one := range strings.SplitSeq(said, ",") {
		id, device, named := strings.Cut(one, "=")
		switch {
		case id == "" || strings.ContainsAny(id, " \t\n"):
			return nil, fmt.Errorf("%q is not auto, a number, or a list of ID=DEVICE", said)
		case named && !filepath.IsAbs(device):
			return nil, fmt.Errorf("device %q of GPU %s is not an absolute path", device, id)
		case slices.ContainsFunc(list, func(g GPU) bool { return g.ID == id }):
			return nil, fmt.Errorf("GPU %s is named more than once", id)
		case len(list) == maxGPUs:
			return nil, fmt.Errorf("there are more than %d GPUs", maxGPUs)
		}
		list = append(list, GPU{id, device})
	}
	return list, nil
}

// findGPUs lists the device nodes nvidia0, nvidia1, … by their numbers, under the ids that the driver gives them.
func findGPUs(dev, proc string) ([]GPU, error) {
	nodes, err := filepath.Glob(filepath.Join(dev, "nvidia[0-9]*"))
	if err != nil {
		return nil, err
	}
	ids, err := gpuIDs(proc)
	if err != nil {
		return nil, err
	}
	byNumber := map[int]GPU{}
	var numbers []int
	for _, node := range nodes {
		number, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(node), "nvidia"))
		if err != nil {
			continue
		}
		g := GPU{ids[number], node}
		if g.ID == "" {
			g.ID = strconv.Itoa(number)
		}
		byNumber[number], numbers = g, append(numbers, number)
	}
	slices.Sort(numbers)
	var list []GPU
	for _, n := range numbers {
		list = append(list, byNumber[n])
	}
	return list, nil
}

// gpuIDs reads which id the device with a number has, where the driver says so.
func gpuIDs(proc string) (map[int]string, error) {
	files, err := filepath.Glob(filepath.Join(proc, "*", "information"))
	if err != nil {
		return nil, err
	}
	ids := map[int]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("GPUs of NVIDIA's driver: %w", err)
		}
		id, number := "", -1
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
			case "GPU UUID":
				id = value
			case "Device Minor":
				if n, err := strconv.Atoi(value); err == nil {
					number = n
				}
			}
		}
		if number >= 0 && strings.HasPrefix(id, "GPU-") && !strings.Contains(id, "?") { // it is ???? until the device was first used
			ids[number] = id
		}
	}
	return ids, nil
}

// checkGPUs says which GPU of a task this host does not have.
func (c *Config) checkGPUs(spec *agentapi.TaskSpec) error {
	for _, s := range spec.Containers {
		for _, id := range s.Gpus {
			if !slices.ContainsFunc(c.GPUs, func(g GPU) bool { return g.ID == id }) {
				return fmt.Errorf("GPU %s of container %s is not on this host any more", id, s.Name)
			}
		}
	}
	return nil
}

// giveGPUs lets containers use the GPUs that are theirs, by what NVIDIA's container runtime understands and by their device nodes.
// Their owner has put them up for this, so it takes no further permission. spec is changed.
func (c *Config) giveGPUs(spec *agentapi.TaskSpec) {
	for _, s := range spec.Containers {
		if len(s.Gpus) == 0 {
			continue
		}
		if s.Environment == nil {
			s.Environment = map[string]string{}
		}
		s.Environment["NVIDIA_VISIBLE_DEVICES"] = strings.Join(s.Gpus, ",")
		for _, g := range c.GPUs {
			if !slices.Contains(s.Gpus, g.ID) || g.Device == "" {
				continue
			}
			giveDevice(s, g.Device)
			for _, control := range gpuControls {
				if path := filepath.Join(filepath.Dir(g.Device), control); strings.HasPrefix(filepath.Base(g.Device), "nvidia") && isDevice(path) {
					giveDevice(s, path)
				}
			}
		}
	}
}

func giveDevice(s *agentapi.ContainerSpec, path string) {
	if !slices.ContainsFunc(s.Devices, func(d *agentapi.Device) bool { return d.HostPath == path }) {
		s.Devices = append(s.Devices, &agentapi.Device{HostPath: path, Access: "rw"})
	}
}

func isDevice(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeDevice != 0
}
