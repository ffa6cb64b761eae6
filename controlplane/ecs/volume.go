package ecs

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// fileSystemID is any name: what it stands for is the business of the hosts, whose owners may know others than "fs-0123…".
var fileSystemID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// checkEFS holds a volume to "EFSVolumeConfiguration" in the ECS API reference.
func checkEFS(v types.Volume) error {
	e := v.EfsVolumeConfiguration
	if e == nil {
		return nil
	}
	name := aws.ToString(v.Name)
	bad := func(member, why string) error {
		return client("Invalid 'efsVolumeConfiguration.%s' setting for volume '%s'. %s", member, name, why)
	}
	if v.DockerVolumeConfiguration != nil || v.Host != nil && aws.ToString(v.Host.SourcePath) != "" {
		return client("Volume '%s' can not have 'efsVolumeConfiguration' beside another configuration.", name)
	}
	root, port := aws.ToString(e.RootDirectory), aws.ToInt32(e.TransitEncryptionPort)
	switch {
	case !fileSystemID.MatchString(aws.ToString(e.FileSystemId)):
		return bad("fileSystemId", "It is not the id of a file system.")
	case root != "" && (!path.IsAbs(root) || slices.Contains(strings.Split(root, "/"), "..") || strings.ContainsAny(root, "\n\x00")):
		return bad("rootDirectory", "An absolute path is due.")
	case e.TransitEncryption != "" && !slices.Contains(e.TransitEncryption.Values(), e.TransitEncryption):
		return bad("transitEncryption", "It is ENABLED or DISABLED.")
	case port < 0 || port > 65535:
		return bad("transitEncryptionPort", "It is a port.")
	}
	a := e.AuthorizationConfig
	if a == nil {
		return nil
	}
	encrypted := e.TransitEncryption == types.EFSTransitEncryptionEnabled
	switch point := aws.ToString(a.AccessPointId); {
	case a.Iam != "" && !slices.Contains(a.Iam.Values(), a.Iam):
		return bad("authorizationConfig.iam", "It is ENABLED or DISABLED.")
	case point != "" && !fileSystemID.MatchString(point):
		return bad("authorizationConfig.accessPointId", "It is not the id of an access point.")
	case point != "" && !encrypted, a.Iam == types.EFSAuthorizationConfigIAMEnabled && !encrypted:
		return bad("transitEncryption", "It must be ENABLED with an access point or IAM authorization.")
	case point != "" && root != "" && root != "/":
		return bad("rootDirectory", "With an access point it must be omitted or /.")
	}
	return nil
}

// checkNFS holds the options of Docker's local driver to what mounting NFS takes.
func checkNFS(v types.Volume) error {
	if !controlplane.IsNFS(v) {
		return nil
	}
	name, d := aws.ToString(v.Name), v.DockerVolumeConfiguration
	device := d.DriverOpts["device"]
	colon := strings.Index(device, ":/") // of no address before it: those of IPv6 end in a bracket
	switch {
	case colon < 0 || strings.ContainsAny(device, "\n\x00"):
		return client("Invalid 'dockerVolumeConfiguration.driverOpts' setting for volume '%s'. The device must be :/PATH or HOST:/PATH.", name)
	case colon == 0 && !strings.Contains(","+d.DriverOpts["o"], ",addr="):
		return client("Invalid 'dockerVolumeConfiguration.driverOpts' setting for volume '%s'. The address of the server must be among the options: addr=….", name)
	}
	return nil
}
