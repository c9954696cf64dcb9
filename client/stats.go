package client

// Stats are a container's statistics. Sizes are bytes, CPU times nanoseconds.
type Stats struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Read     string     `json:"read"`
	CPU      CPUStats   `json:"cpu_stats"`
	Previous CPUStats   `json:"precpu_stats"`
	Memory   MemStats   `json:"memory_stats"`
	Pids     PidsStats  `json:"pids_stats"`
	Block    BlockStats `json:"blkio_stats"`
	Networks map[string]struct {
		RxBytes uint64 `json:"rx_bytes"`
		TxBytes uint64 `json:"tx_bytes"`
	} `json:"networks"`
	Pressure *Pressure `json:"pressure_stats"` // nil where the kernel doesn't count it
}

// Pressure is how long a container's tasks waited for what they need.
type Pressure struct {
	CPU    *Waiting `json:"cpu"`
	Memory *Waiting `json:"memory"`
	IO     *Waiting `json:"io"`
}

// Waiting is for one resource: Some while at least one task waited, Full while
// all did.
type Waiting struct {
	Some WaitingShare `json:"some"`
	Full WaitingShare `json:"full"`
}

// WaitingShare is percent of the last 10 seconds.
type WaitingShare struct {
	Avg10 float64 `json:"avg10"`
}

// CPUStats are the processor's.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage"`
	} `json:"cpu_usage"`
	System uint64 `json:"system_cpu_usage"`
	Online uint32 `json:"online_cpus"`
}

// MemStats are the memory's.
type MemStats struct {
	Usage uint64            `json:"usage"`
	Limit uint64            `json:"limit"`
	Stats map[string]uint64 `json:"stats"`
}

// PidsStats count processes.
type PidsStats struct {
	Current uint64 `json:"current"`
}

// BlockStats are the block devices'.
type BlockStats struct {
	Bytes []struct {
		Op    string `json:"op"`
		Value uint64 `json:"value"`
	} `json:"io_service_bytes_recursive"`
}
