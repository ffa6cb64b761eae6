package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Upkeep is how a host is kept fit to run tasks. The zero value has the ECS agent's defaults, and no least free disk.
type Upkeep struct {
	ImageCleanup     time.Duration // between two clean-ups of unused images; 0: 30 min, negative: never
	ImageAge         time.Duration // for how long an image must not have been used before it goes; 0: 1 h
	ImagesPerCleanup int           // 0: 5
	// DiskMinimum is how many bytes must be free. With less, unused images go whatever their age; if that does not help, the host
	// takes no new tasks until a quarter more is free. 0: the disk is not looked at.
	DiskMinimum uint64
	// DiskFree measures; nil: the file system of the agent's folder.
	DiskFree func() (uint64, error)
}

func (u Upkeep) withDefaults(dir string) Upkeep {
	if u.ImageCleanup == 0 {
		u.ImageCleanup = 30 * time.Minute
	}
	if u.ImageAge == 0 {
		u.ImageAge = time.Hour
	}
	if u.ImagesPerCleanup == 0 {
		u.ImagesPerCleanup = 5
	}
	if u.DiskFree == nil {
		u.DiskFree = func() (uint64, error) {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				return 0, fmt.Errorf("free space of %s: %w", dir, err)
			}
			return st.Bavail * uint64(st.Bsize), nil
		}
	}
	return u
}

const (
	diskEvery    = 10 * time.Second
	runtimeEvery = time.Minute
	// pressedAge is how old an image must be when the disk is short: the task that it was pulled for has begun by then.
	pressedAge = 10 * time.Minute
	mib        = 1 << 20
)

// tendHost cleans up images, looks after the disk and the runtime, and tells the control plane what changes, until ctx ends.
func (a *Agent) tendHost(ctx context.Context) {
	now := a.cfg.Clock.Now()
	nextCleanup, nextCheck := now.Add(a.cfg.Upkeep.ImageCleanup), now.Add(runtimeEvery)
	for {
		h := proto.CloneOf(a.hostHealth())
		now = a.cfg.Clock.Now()
		if a.cfg.Upkeep.ImageCleanup > 0 && !now.Before(nextCleanup) {
			a.cleanImages(ctx, runtime.Cleanup{MinimumAge: a.cfg.Upkeep.ImageAge, Most: a.cfg.Upkeep.ImagesPerCleanup})
			nextCleanup = now.Add(a.cfg.Upkeep.ImageCleanup)
		}
		h.Disk = a.checkDisk(ctx, h.Disk != "")
		if !now.Before(nextCheck) {
			h.Runtime = a.checkRuntime(ctx)
			nextCheck = now.Add(runtimeEvery)
		}
		if ctx.Err() != nil {
			return
		}
		a.setHostHealth(h)
		select {
		case <-ctx.Done():
			return
		case <-a.cfg.Clock.After(diskEvery):
		}
	}
}

// checkRuntime says what the driver lacks now. An engine that does not answer is not waited for.
func (a *Agent) checkRuntime(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return strings.Join(a.cfg.Driver.Check(ctx), "; ")
}

// checkDisk says how the host is short of disk; empty: it is not, or what it has cannot be told.
func (a *Agent) checkDisk(ctx context.Context, short bool) string {
	u := a.cfg.Upkeep
	if u.DiskMinimum == 0 {
		return ""
	}
	wanted := u.DiskMinimum
	if short {
		wanted += wanted / 4
	}
	free, err := u.DiskFree()
	if err == nil && free < wanted && a.cleanImages(ctx, runtime.Cleanup{MinimumAge: pressedAge}) {
		free, err = u.DiskFree()
	}
	if err != nil {
		a.log.Error("look after the disk", "error", err)
		return ""
	}
	if free >= wanted {
		return ""
	}
	return fmt.Sprintf("%d MiB of disk, of the %d MiB that must be", free/mib, u.DiskMinimum/mib)
}

// cleanImages says whether anything was removed.
func (a *Agent) cleanImages(ctx context.Context, c runtime.Cleanup) bool {
	cleaner, ok := a.cfg.Driver.(runtime.ImageCleaner)
	if !ok {
		return false
	}
	removed, err := cleaner.CleanImages(ctx, c)
	if len(removed) > 0 {
		a.log.Info("removed unused images", "images", removed)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Error("remove unused images", "error", err)
	}
	return len(removed) > 0
}

// hostHealth is immutable.
func (a *Agent) hostHealth() *agentapi.HostHealth {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.health
}

func (a *Agent) setHostHealth(h *agentapi.HostHealth) {
	a.mu.Lock()
	old := a.health
	a.health = h
	a.mu.Unlock()
	if proto.Equal(old, h) {
		return
	}
	if (h.Disk == "") != (old.Disk == "") || h.Runtime != old.Runtime {
		a.log.Warn("the health of this host changed", "runtime", h.Runtime, "disk_free", h.Disk)
	} else if old.Disk != "" {
		return // less or more of too little is no news
	}
	a.out.host(h)
}
