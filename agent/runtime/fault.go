package runtime

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// FaultKind is what a fault does, in ECS's words.
type FaultKind string

// The kinds of faults. Of the last two a network has one at a time.
const (
	BlackholePort FaultKind = "network-blackhole-port"
	Latency       FaultKind = "network-latency"
	PacketLoss    FaultKind = "network-packet-loss"
)

// Fault is something that is wrong with a task's network because somebody wants it to be.
type Fault struct {
	Kind FaultKind

	// Of BlackholePort: packets to the port are dropped as they come in (Ingress), or leave. These three are what it is known by.
	Protocol string // tcp, udp
	Port     uint16
	Ingress  bool

	// Of the others, which concern packets that leave for Sources.
	Delay, Jitter time.Duration // of Latency; less than MaxDelay
	Loss          int           // of PacketLoss: of 100 packets
	Flows         int           // of 100 flows, as many are concerned
	Sources       []netip.Prefix

	// Spared are peers that it does not concern.
	Spared []netip.Prefix
	// Metadata is where the task asks about itself, and ends the fault: never concerned. Invalid: there is no such place.
	Metadata netip.AddrPort
}

// MaxDelay is what a kernel can be told.
const MaxDelay = 4 * time.Minute

// FaultRuns says that a fault cannot be started beside one that runs.
type FaultRuns struct{ Kind FaultKind }

func (e *FaultRuns) Error() string {
	if e.Kind == PacketLoss {
		return "There is already one network packet loss fault running"
	}
	return "There is already one network latency fault running"
}

// CannotDelay says that the host's kernel cannot do what a fault of kind Latency takes.
type CannotDelay struct{ Err error }

func (e *CannotDelay) Error() string {
	return fmt.Sprintf("the kernel of this host does not delay packets: it has no netem (the modules sch_netem and sch_prio): %v", e.Err)
}

func (e *CannotDelay) Unwrap() error { return e.Err }

// FaultInjector is a Driver that can make the networks of tasks faulty: those of network mode awsvpc each their own, with network mode host the
// host's. What a fault is kept in is the kernel's, so it outlasts the process of the driver; it ends with its task.
type FaultInjector interface {
	// CheckFaults says what this host lacks for it, one line each. A kernel that cannot delay packets is not among that.
	CheckFaults(ctx context.Context) []string
	// StartFault starts one: a *FaultRuns or a *CannotDelay, or another error. A port's that runs goes on as it is.
	StartFault(ctx context.Context, taskID string, f Fault) error
	// StopFault ends one; that it does not run is no error.
	StopFault(ctx context.Context, taskID string, f Fault) error
	// HasFault says whether it runs.
	HasFault(ctx context.Context, taskID string, f Fault) (bool, error)
}
