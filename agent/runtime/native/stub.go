//go:build !linux || !cgo

package native

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"time"

	driver "github.com/seed-2f228079/neargate/agent/runtime"
)

// Hook has nothing to take over in this build.
func Hook() {}

// Driver of a build that cannot run containers: only Check, which says so, is of use.
type Driver struct{}

var errBuild = errors.New(missing)

// New refuses and says what is missing.
func New(Config) (*Driver, error) { return nil, errBuild }

// Check says what is missing.
func Check() []string { return []string{missing} }

const missing = "the native driver is not in this build (" + runtime.GOOS + "/" + runtime.GOARCH +
	"): it needs Linux and a build with CGO_ENABLED=1, a C compiler and libseccomp's headers, go build -tags seccomp"

func (*Driver) Name() string                   { return "native" }
func (*Driver) Check(context.Context) []string { return Check() }
func (*Driver) Gateway(context.Context) (netip.Addr, error) {
	return netip.Addr{}, errBuild
}
func (*Driver) LinkLocal(context.Context) (net.Listener, error) { return nil, errBuild }
func (*Driver) Pull(context.Context, driver.PullRequest) (driver.Image, error) {
	return driver.Image{}, errBuild
}
func (*Driver) Create(context.Context, driver.Task) (driver.Sandbox, error) {
	return driver.Sandbox{}, errBuild
}
func (*Driver) Confide(context.Context, string, map[string]driver.Secrets) error {
	return errBuild
}
func (*Driver) Start(context.Context, string, string) (driver.Started, error) {
	return driver.Started{}, errBuild
}
func (*Driver) Restart(context.Context, string, string, driver.Started) (driver.Started, error) {
	return driver.Started{}, errBuild
}
func (*Driver) Exec(context.Context, string, string, driver.Command) (int, error) { return 0, errBuild }
func (*Driver) Stop(context.Context, string, string, time.Duration) error         { return errBuild }
func (*Driver) Wait(context.Context, string, string) (driver.Exit, error) {
	return driver.Exit{}, errBuild
}
func (*Driver) Remove(context.Context, string) error                { return errBuild }
func (*Driver) Recover(context.Context) ([]driver.Recovered, error) { return nil, errBuild }
func (*Driver) Logs(context.Context, string, string, driver.LogOptions) (driver.LogReader, error) {
	return nil, errBuild
}
func (*Driver) Stats(context.Context, string, string) (driver.Stats, error) {
	return driver.Stats{}, errBuild
}
func (*Driver) RemoveLogs(context.Context, string) error { return errBuild }
func (*Driver) Close(context.Context, bool) error        { return nil }

var (
	_ driver.Driver = (*Driver)(nil)
)
