package controlplane

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Attributes of hosts whose owner has a program that mounts such file systems. ECS has the first two.
const (
	CapabilityEFS     = "ecs.capability.efs"
	CapabilityEFSAuth = "ecs.capability.efsAuth"
	CapabilityNFS     = "neargate.capability.nfs"
)

// VolumeAttributes are those that a host needs for the volumes.
func VolumeAttributes(volumes []types.Volume) []string {
	var efs, auth, nfs bool
	for _, v := range volumes {
		efs = efs || v.EfsVolumeConfiguration != nil
		auth = auth || v.EfsVolumeConfiguration != nil && v.EfsVolumeConfiguration.AuthorizationConfig != nil
		nfs = nfs || IsNFS(v)
	}
	var list []string
	for _, a := range []struct {
		needed bool
		name   string
	}{{efs, CapabilityEFS}, {auth, CapabilityEFSAuth}, {nfs, CapabilityNFS}} {
		if a.needed {
			list = append(list, a.name)
		}
	}
	return list
}

// IsNFS says whether a volume of Docker's local driver is one of NFS.
func IsNFS(v types.Volume) bool {
	d := v.DockerVolumeConfiguration
	return d != nil && (d.DriverOpts["type"] == "nfs" || d.DriverOpts["type"] == "nfs4")
}

func renderEFS(e *types.EFSVolumeConfiguration) *agentapi.EFSVolume {
	if e == nil {
		return nil
	}
	r := &agentapi.EFSVolume{
		FileSystemId: aws.ToString(e.FileSystemId), RootDirectory: aws.ToString(e.RootDirectory),
		TransitEncryption: e.TransitEncryption == types.EFSTransitEncryptionEnabled, TransitEncryptionPort: uint32(aws.ToInt32(e.TransitEncryptionPort)),
	}
	if a := e.AuthorizationConfig; a != nil {
		r.AccessPointId, r.Iam = aws.ToString(a.AccessPointId), a.Iam == types.EFSAuthorizationConfigIAMEnabled
	}
	return r
}
