//go:build linux && cgo

package native

import (
	"context"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

var _ runtime.LogDrivers = (*Driver)(nil)

// LogDrivers are those that not every host has.
func (d *Driver) LogDrivers(context.Context) []string {
	if logs.HasJournal() {
		return []string{logs.DriverSplunk, logs.DriverJournald}
	}
	return []string{logs.DriverSplunk}
}
