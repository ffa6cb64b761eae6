package runtime

import "time"

// Stats is what a running container uses at a moment, by the member names of Docker's API: ECS hands these on, and programs read them
// so. Counters run from the container's start.
type Stats struct {
	Read    time.Time `json:"read"`
	PreRead time.Time `json:"preread"` // of the sample in PreCPU; zero: there is none

	PIDs     PIDStats                `json:"pids_stats"`
	BlockIO  BlockIOStats            `json:"blkio_stats"`
	CPU      CPUStats                `json:"cpu_stats"`
	PreCPU   CPUStats                `json:"precpu_stats"`
	Memory   MemoryStats             `json:"memory_stats"`
	Networks map[string]NetworkStats `json:"networks,omitempty"` // by interface: the whole task's
}

// PIDStats counts processes and threads.
type PIDStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"` // 0: none
}

// CPUStats is processor time in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage,omitempty"` // cgroup v1
		Kernel uint64   `json:"usage_in_kernelmode"`
		User   uint64   `json:"usage_in_usermode"`
	} `json:"cpu_usage"`
	System     uint64 `json:"system_cpu_usage,omitempty"` // of the whole host, all processors together
	Online     uint32 `json:"online_cpus,omitempty"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttled_periods"`
		ThrottledTime    uint64 `json:"throttled_time"`
	} `json:"throttling_data"`
}

// MemoryStats is in bytes.
type MemoryStats struct {
	Usage    uint64            `json:"usage,omitempty"`
	MaxUsage uint64            `json:"max_usage,omitempty"` // cgroup v1
	Stats    map[string]uint64 `json:"stats,omitempty"`     // the kernel's own names
	Limit    uint64            `json:"limit,omitempty"`
}

// BlockIOStats has an entry a device and kind of operation.
type BlockIOStats struct {
	ServiceBytes []BlockIOEntry `json:"io_service_bytes_recursive"`
	Serviced     []BlockIOEntry `json:"io_serviced_recursive"`
}

// BlockIOEntry is one counter.
type BlockIOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// NetworkStats are an interface's counters.
type NetworkStats struct {
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDropped uint64 `json:"rx_dropped"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDropped uint64 `json:"tx_dropped"`
}
