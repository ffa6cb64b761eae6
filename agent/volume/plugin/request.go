package plugin

import agentapi "github.com/seed-2f228079/neargate/api/agent"

// Request is what the program is told.
type Request struct {
	Task    Task   `json:"task"`
	Volume  string `json:"volume"` // its name in the task definition
	Target  string `json:"target"` // the folder to mount at
	EFS     *EFS   `json:"efs,omitempty"`
	NFS     *NFS   `json:"nfs,omitempty"`
	Mounted bool   `json:"mounted,omitempty"` // of the record: the program has done it
}

// Task is whose volume it is.
type Task struct {
	ID      string `json:"id"`
	Account string `json:"account"`
	Region  string `json:"region"`
	Cluster string `json:"cluster"`
	Family  string `json:"family"`
	Role    string `json:"taskRoleArn,omitempty"`
}

// EFS is efsVolumeConfiguration, in its own words.
type EFS struct {
	FileSystemID          string `json:"fileSystemId"`
	RootDirectory         string `json:"rootDirectory"`
	TransitEncryption     string `json:"transitEncryption"`
	TransitEncryptionPort uint32 `json:"transitEncryptionPort,omitempty"`
	AccessPointID         string `json:"accessPointId,omitempty"`
	IAM                   string `json:"iam"`
}

// NFS is what the options of Docker's local driver say: mount -t TYPE -o OPTIONS DEVICE.
type NFS struct {
	Type    string `json:"type"`    // nfs or nfs4
	Device  string `json:"device"`  // ":/path" with addr among the options, or "host:/path"
	Options string `json:"options"` // "addr=10.0.0.1,rw"
}

// Wants says whether a volume is the plug-in's to mount.
func Wants(v *agentapi.VolumeSpec) bool { return v.Efs != nil || isNFS(v) }

func isNFS(v *agentapi.VolumeSpec) bool {
	return v.HostPath == "" && (v.DriverOptions["type"] == "nfs" || v.DriverOptions["type"] == "nfs4")
}

func request(taskID string, spec *agentapi.TaskSpec, v *agentapi.VolumeSpec, target string) Request {
	r := Request{Volume: v.Name, Target: target, Task: Task{ID: taskID, Account: spec.Account, Region: spec.Region, Cluster: spec.Cluster, Family: spec.Family, Role: spec.TaskRole}}
	if isNFS(v) {
		r.NFS = &NFS{Type: v.DriverOptions["type"], Device: v.DriverOptions["device"], Options: v.DriverOptions["o"]}
		return r
	}
	said := map[bool]string{true: "ENABLED", false: "DISABLED"}
	r.EFS = &EFS{
		FileSystemID: v.Efs.FileSystemId, RootDirectory: v.Efs.RootDirectory, TransitEncryption: said[v.Efs.TransitEncryption],
		TransitEncryptionPort: v.Efs.TransitEncryptionPort, AccessPointID: v.Efs.AccessPointId, IAM: said[v.Efs.Iam],
	}
	if r.EFS.RootDirectory == "" {
		r.EFS.RootDirectory = "/"
	}
	return r
}
