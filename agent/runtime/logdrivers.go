package runtime

import "context"

// LogDrivers is a Driver that says which log drivers it has here of those that not every host has: splunk, journald.
type LogDrivers interface {
	LogDrivers(ctx context.Context) []string
}
