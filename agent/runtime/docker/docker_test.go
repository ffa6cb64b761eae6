package docker

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"

	linklocal "github.com/seed-2f228079/neargate/agent/network"
	nr "github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
)

func open(dir string) (nr.Driver, error) {
	return New(Config{Dir: dir, ID: strings.ReplaceAll(strings.TrimPrefix(dir, os.TempDir()), "/", "_")})
}

func TestMain(m *testing.M) { runtimetest.Main(m, open) }

// engine skips where no engine answers; make test starts one where it can.
func engine(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Config{Dir: t.TempDir(), ID: "probe"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that is not there refuses at once
	defer cancel()
	if lacks := d.Check(ctx); len(lacks) > 0 {
		t.Skip(lacks[0])
	}
	return d
}

func TestSuite(t *testing.T) {
	probe := engine(t)
	runtimetest.Run(t, open, runtimetest.Features{Processes: true, SurvivesKill: true, Leftovers: func(t *testing.T, dir string) []string {
		d, _ := open(dir)
		id := d.(*Driver).cfg.ID
		probe.cfg.ID = id
		var left []string
		list, err := probe.list(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			left = append(left, "container "+c.Names[0])
		}
		vols, err := probe.cli.VolumeList(context.Background(), volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelInstance+"="+id))})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vols.Volumes {
			if v.Labels[labelTask] != "" {
				left = append(left, "volume "+v.Name)
				continue
			}
			probe.cli.VolumeRemove(context.Background(), v.Name, true) // kept by name: the test's own to remove
		}
		for _, redirect := range []string{id, ownID(id)} {
			if ok, err := (&linklocal.Redirect{ID: redirect}).Exists(); err != nil || ok {
				left = append(left, "nftables table of "+redirect)
			}
		}
		own := linklocal.New(linklocal.Config{ID: id})
		if ok, err := own.HasTable(); err != nil || ok {
			left = append(left, "nftables table of the network")
		}
		if _, err := net.InterfaceByName(own.Bridge()); err == nil {
			left = append(left, "bridge "+own.Bridge())
		}
		return left
	}})
}

// The sandbox's program must be an executable that waits.
func TestPauseProgram(t *testing.T) {
	for arch := range pauseCode {
		b, err := pauseProgram(arch)
		if err != nil || len(b) < 120 {
			t.Fatalf("%s: %d bytes, %v", arch, len(b), err)
		}
	}
	b, err := pauseProgram(runtime.GOARCH)
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("ended by itself: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cmd.Process.Kill()
	<-ended
}
