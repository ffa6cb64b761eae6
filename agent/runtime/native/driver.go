//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Driver runs tasks on this host. It implements runtime.Driver.
type Driver struct {
	cfg    Config
	net    *network.Network
	images *imageStore
	lock   *os.File // held for as long as this driver is open

	// executable is the path of what shims and inits execute; it waits until that is there.
	executable func() string

	mu    sync.Mutex
	tasks map[string]*task

	warm *pool
}

var _ runtime.Driver = (*Driver)(nil)

// New opens the driver's folder. Nothing is made in the kernel before a task needs it. It fails when another process has the
// folder open.
func New(cfg Config) (*Driver, error) {
	if cfg.Dir == "" {
		return nil, errors.New("native driver: no folder")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	cfg = cfg.withDefaults()
	for _, d := range []string{"", "tasks", "logs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("native driver: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("native driver: %w", err)
	}
	// A process killed between fork and exec of a shim leaves a child that holds the lock until its exec, moments later.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("native driver: another process uses %s: %w", dir, err), lock.Close())
		}
	}
	d := &Driver{cfg: cfg, lock: lock, images: newImageStore(cfg), tasks: map[string]*task{}, warm: newPool(cfg),
		net: network.New(network.Config{ID: cfg.ID, Subnet: cfg.Subnet, Zone: cfg.Zone, Folder: dir, AllowMetadata: cfg.AllowMetadata, Logger: cfg.Logger,
			Mode: cfg.NetworkMode, VXLANPort: cfg.VXLANPort, VXLANID: cfg.VXLANID})}
	if err := d.adoptAddresses(); err != nil {
		return nil, errors.Join(fmt.Errorf("native driver: %w", err), lock.Close())
	}
	d.executable = sync.OnceValue(d.program)
	go d.executable()
	return d, nil
}

// Gateway is the bridge's address.
func (d *Driver) Gateway(ctx context.Context) (netip.Addr, error) {
	if err := d.net.Up(ctx); err != nil {
		return netip.Addr{}, err
	}
	return d.net.Gateway(), nil
}

// LinkLocal listens on the bridge.
func (d *Driver) LinkLocal(ctx context.Context) (net.Listener, error) {
	if err := d.net.Up(ctx); err != nil {
		return nil, err
	}
	return d.net.ListenLinkLocal(ctx)
}

// Network is where the tasks have their addresses.
func (d *Driver) Network() *network.Network { return d.net }

// Name is native.
func (d *Driver) Name() string { return "native" }

// Check says what this host and this build lack.
func (d *Driver) Check(context.Context) []string {
	lacks := Check()
	if len(lacks) == 0 {
		if err := tryOverlay(d.cfg.Dir); err != nil {
			lacks = append(lacks, fmt.Sprintf("overlayfs does not work in %s: %v; keep the data on ext4 or xfs", d.cfg.Dir, err))
		}
	}
	return lacks
}

// Check says what this host and this build lack for any native driver, one line each.
func Check() []string {
	var lacks []string
	if os.Geteuid() != 0 {
		lacks = append(lacks, fmt.Sprintf("user id is %d: the native driver must run as root", os.Geteuid()))
	}
	if caps, err := runtime.OwnCapabilities(); err == nil {
		have := map[string]bool{}
		for _, c := range caps {
			have[c] = true
		}
		for _, c := range []string{"SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "MKNOD"} {
			if !have[c] {
				lacks = append(lacks, "capability CAP_"+c+" is missing")
			}
		}
	}
	if !lcseccomp.Enabled {
		lacks = append(lacks, "this program was built without seccomp: build it with -tags seccomp (libseccomp-dev and a C compiler are needed)")
	} else if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		lacks = append(lacks, "the kernel has no seccomp: CONFIG_SECCOMP_FILTER is needed")
	}
	lacks = append(lacks, checkCgroups()...)
	return append(lacks, network.Check()...)
}

// tryOverlay mounts an overlay in dir, seen by nobody else.
func tryOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, ".overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "upper", "work", "m"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return err
		}
	}
	result := make(chan error, 1)
	go func() {
		result <- func() error {
			lockThreadForever() // it dies with its mount namespace
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("new mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				return err
			}
			return unix.Mount("overlay", tmp+"/m", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp))
		}()
	}()
	return <-result
}

// Pull makes an image ready.
func (d *Driver) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	r, err := d.images.pull(ctx, req)
	if err != nil {
		return runtime.Image{}, err
	}
	return r.image(), nil
}

// Close ends the driver; tasks run on. With everything it removes them all and what else there is of the instance in the kernel.
func (d *Driver) Close(ctx context.Context, everything bool) error {
	if d.lock == nil {
		return nil
	}
	var errs []error
	if everything {
		errs = append(errs, d.removeAll(ctx))
	}
	d.executable() // nothing is written after Close
	errs = append(errs, d.lock.Close())
	d.lock = nil
	return errors.Join(errs...)
}

func (d *Driver) removeAll(ctx context.Context) error {
	if _, err := d.Recover(ctx); err != nil { // those of which this process knows nothing
		return err
	}
	d.mu.Lock()
	var ids []string
	for id := range d.tasks {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := d.Remove(ctx, id); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	errs = append(errs, d.net.Down(ctx), killCgroup(d.cgroupParent()), removeCgroup(d.cgroupParent()), d.images.clean())
	return errors.Join(errs...)
}

// validContainerName says whether s may become a file name; ECS allows letters, digits, hyphens and underscores.
func validContainerName(s string) bool { return len(s) <= 255 && containerName.MatchString(s) }

func validTaskID(s string) bool { return len(s) <= 64 && taskID.MatchString(s) }

// No counted repetitions: they take long to compile, at each start of a shim and of a container too.
var (
	containerName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	taskID        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*$`)
)
