package ecs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// support says of every member of a shape what becomes of it. Honoured members do here what they do in ECS. Ignored ones are
// accepted, kept and shown, and have no effect here; the reason says why that harms nobody. Refused ones would change
// what runs in a way that the user would miss: a request that sets one fails, and says which.
type support struct {
	honoured string            // names
	notes    map[string]string // of honoured ones: what is different here, or depends on the host
	ignored  map[string]string
	refused  map[string]string
}

func (s support) honours(member string) bool {
	return slices.Contains(strings.Fields(s.honoured), member)
}

// supported is by SDK type. A test holds it against the SDK: no member is without an answer.
var supported = map[string]support{
	"RegisterTaskDefinitionInput": {
		honoured: "containerDefinitions cpu enableFaultInjection ephemeralStorage executionRoleArn family ipcMode memory networkMode pidMode placementConstraints proxyConfiguration requiresCompatibilities runtimePlatform " +
			"tags taskRoleArn volumes",
		notes: map[string]string{
			"enableFaultInjection": "black holes and packet loss on every host; network-latency takes a kernel with netem (the attribute neargate.capability.netem tells which have it) and otherwise answers so. " +
				"Faults end with their task; network mode host takes --allow-privileged. Shown by TestFaultEndpoints, TestNetemQdiscs, TestSuite/Faults (both runtimes) and TestFaultInjection",
			"ephemeralStorage": "the native runtime reserves it for writable layers and volumes, also with launch type EC2, on hosts that have loop devices and " +
				"mkfs.ext4; without it a task uses the disk of its host, on Fargate too",
			"executionRoleArn": "images of the platform's own registry are pulled, and awslogs written, by what the role may; without one, with the platform's own rights. Secrets, registry credentials and environment files are read as it. " +
				"requiresCompatibilities FARGATE needs one for awslogs and for images named <account>.dkr.ecr.<region>.…",
			"proxyConfiguration": "of TCP over IPv4, which is what tasks have; shown by TestSuite/Intercept (both runtimes) and TestProxyConfiguration",
			"taskRoleArn":        "with networkMode none there is nothing to ask for the credentials",
			"ipcMode":            "host only where the host's owner allows it (--allow-privileged); without a mode, and with none, each container has its own",
			"pidMode":            "host only where the host's owner allows it (--allow-privileged)",
		},
		refused: map[string]string{
			"inferenceAccelerators": "there are no Elastic Inference accelerators",
		},
	},
	"ContainerDefinition": {
		honoured: "command cpu dependsOn disableNetworking dnsSearchDomains dnsServers dockerLabels dockerSecurityOptions entryPoint environment " +
			"environmentFiles essential extraHosts firelensConfiguration healthCheck hostname image interactive links linuxParameters logConfiguration memory memoryReservation " +
			"mountPoints name portMappings privileged pseudoTerminal readonlyRootFilesystem repositoryCredentials resourceRequirements restartPolicy secrets startTimeout stopTimeout " +
			"systemControls ulimits user versionConsistency volumesFrom workingDirectory",
		notes: map[string]string{
			"dockerSecurityOptions": "no-new-privileges; apparmor, label and credentialspec are refused by name",
			"environmentFiles":      "read from the S3-compatible endpoint that the operator names (--s3-endpoint), if the execution role may s3:GetObject; shown by TestTaskIsStartedWithFilesOfVariables",
			"firelensConfiguration": "on hosts with the native runtime; at most one container of a task, as on ECS; shown by TestFireLens, TestRenderFireLens and TestSuite/Logs/FireLens",
			"healthCheck":           "run by the agent, in the container; an image's own HEALTHCHECK is not run, as on ECS",
			"interactive":           "nobody can be attached to the input",
			"links":                 "the containers of a task share one network namespace: a link is a name for 127.0.0.1",
			"privileged":            "only where the host's owner allows it (--allow-privileged)",
			"repositoryCredentials": "shown by TestPrivateRegistry",
			"resourceRequirements":  "whole GPUs of the hosts that have some (--gpus), not with FARGATE; shown by TestGPUsArePlacedAndPinned, TestGPUsReachTheirContainer and TestGPUsAndVolumes (both runtimes)",
			"secrets":               "also as files on a tmpfs: the label neargate.secrets.files in dockerLabels names their folder; shown by TestSecretsReachTasks",
			"systemControls":        "net.* is the whole task's, also with networkMode bridge: its containers share one network namespace",
			"ulimits":               "at most what the agent's own hard limits are, unless it may raise them (CAP_SYS_RESOURCE)",
			"versionConsistency":    "the first task of a deployment that has pulled an image decides for those behind it; shown by TestDeploymentKeepsToItsImages and TestVersionConsistency",
		},
		refused: map[string]string{
			"credentialSpecs": "they are of domains of Active Directory, which hosts do not join",
		},
	},
	"ContainerDependency": {honoured: "condition containerName"},
	"ContainerRestartPolicy": {
		honoured: "enabled ignoredExitCodes restartAttemptPeriod",
	},
	"HealthCheck": {honoured: "command interval retries startPeriod timeout",
		notes: map[string]string{"command": "CMD-SHELL runs /bin/sh -c, whatever shell the image names"}},
	"LinuxParameters": {
		honoured: "capabilities devices initProcessEnabled maxSwap sharedMemorySize swappiness tmpfs",
		notes: map[string]string{
			"devices":            "only where the host's owner allows it (--allow-privileged)",
			"initProcessEnabled": "the native runtime's init is process 1 of the container's process namespace, and the program not its child",
			"maxSwap":            "where the kernel accounts for swap; without it a container gets none",
			"swappiness":         "on hosts with version 1 of cgroups; version 2 has no such setting",
		},
	},
	"KernelCapabilities": {
		honoured: "add drop",
		notes: map[string]string{"add": "beyond Docker's default set only where the host's owner allows it (--allow-privileged); " +
			"ALL with the docker runtime lacks BPF, PERFMON and CHECKPOINT_RESTORE, which engines before 23 do not know"},
	},
	"Device":          {honoured: "containerPath hostPath permissions"},
	"Tmpfs":           {honoured: "containerPath mountOptions size", notes: map[string]string{"mountOptions": "bind, rbind and remount mount no tmpfs and are refused by name"}},
	"Ulimit":          {honoured: "hardLimit name softLimit"},
	"SystemControl":   {honoured: "namespace value"},
	"HostEntry":       {honoured: "hostname ipAddress"},
	"KeyValuePair":    {honoured: "name value"},
	"EnvironmentFile": {honoured: "type value"},
	"RepositoryCredentials": {honoured: "credentialsParameter",
		notes: map[string]string{"credentialsParameter": "a secret whose value is a JSON object with username and password"}},
	"Secret": {honoured: "name valueFrom",
		notes: map[string]string{"valueFrom": "of the task's account; with json-key, version-stage and version-id behind the ARN of a secret"}},
	"LogConfiguration": {
		honoured: "logDriver options secretOptions",
		notes: map[string]string{
			"logDriver":     "awsfirelens, awslogs, fluentd, gelf (shown by TestGelfMessages and TestSuite/Logs/Drivers), journald on hosts that have one (TestJournaldMessages), json-file, none, splunk (TestSplunkEvents and TestSuite/Logs/Drivers) and syslog",
			"secretOptions": "not with awslogs, whose options say where the platform's own log groups are; with awsfirelens as variables of the log router, to which its configuration refers",
		},
	},
	"FirelensConfiguration": {honoured: "options type",
		notes: map[string]string{"options": "enable-ecs-log-metadata, config-file-type and config-file-value; a file in S3 is refused by name"}},
	"MountPoint": {honoured: "containerPath readOnly sourceVolume"},
	"PortMapping": {
		honoured: "containerPort containerPortRange hostPort name protocol",
		notes:    map[string]string{"containerPortRange": "with networkMode bridge at most 1,000 ports a range; the host ports of a range are in a row"},
		ignored:  map[string]string{"appProtocol": "it matters to Service Connect alone"},
	},
	"ResourceRequirement": {
		honoured: "type value",
		notes:    map[string]string{"type": "GPU; others are refused by name", "value": "a number of GPUs; ALL is refused by name"},
		refused:  map[string]string{"sharingStrategy": "each GPU is one container's"},
	},
	"VolumeFrom": {honoured: "readOnly sourceContainer"},
	"Volume": {
		honoured: "dockerVolumeConfiguration efsVolumeConfiguration host name",
		notes: map[string]string{
			"efsVolumeConfiguration": "on hosts whose owner has a program that mounts file systems (--volume-command), to which it says everything; shown by TestGPUsAndVolumes (both runtimes), TestVolumesOfAProgram and TestPlugin",
		},
		refused: map[string]string{
			"configuredAtLaunch":                      "volumes can not be configured at launch yet",
			"fsxWindowsFileServerVolumeConfiguration": "file systems of AWS can not be mounted",
			"s3filesVolumeConfiguration":              "file systems of AWS can not be mounted",
		},
	},
	"EFSVolumeConfiguration": {
		honoured: "authorizationConfig fileSystemId rootDirectory transitEncryption transitEncryptionPort",
		notes:    map[string]string{"transitEncryption": "what the program of the host's owner makes of it"},
	},
	"EFSAuthorizationConfig": {
		honoured: "accessPointId iam",
		notes:    map[string]string{"iam": "the program of the host's owner is told the task's role, and decides"},
	},
	"HostVolumeProperties": {honoured: "sourcePath"},
	"DockerVolumeConfiguration": {
		honoured: "driver driverOpts scope",
		notes: map[string]string{
			"driverOpts": "type tmpfs, with scope task; type none with bind among the options, below a folder that the host's owner allows (--allow-host-path); or type nfs or nfs4 " +
				"on hosts whose owner has a program that mounts it (--volume-command; shown by TestGPUsAndVolumes and TestPlugin). Other types are refused by name",
		},
		ignored: map[string]string{
			"autoprovision": "volumes are made when they are missing",
			"labels":        "nothing reads the labels of a volume",
		},
	},
	"ProxyConfiguration": {
		honoured: "containerName properties type",
		notes:    map[string]string{"properties": "more than 15 ports in a list count too; on ECS they are left out"},
	},
	"RuntimePlatform":                   {honoured: "cpuArchitecture operatingSystemFamily"},
	"EphemeralStorage":                  {honoured: "sizeInGiB"},
	"TaskDefinitionPlacementConstraint": {honoured: "expression type"},
	"Tag":                               {honoured: "key value"},

	"RunTaskInput": {
		honoured: "capacityProviderStrategy clientToken cluster count enableECSManagedTags enableExecuteCommand group launchType networkConfiguration overrides " +
			"placementConstraints placementStrategy platformVersion propagateTags startedBy tags taskDefinition",
		ignored: map[string]string{"referenceId": "it is for the caller's own use"},
		refused: map[string]string{
			"volumeConfigurations": "volumes can not be configured at launch yet",
		},
	},
	"StartTaskInput": {
		honoured: "cluster containerInstances enableECSManagedTags enableExecuteCommand group networkConfiguration overrides propagateTags startedBy tags taskDefinition",
		ignored:  map[string]string{"referenceId": "it is for the caller's own use"},
		refused: map[string]string{
			"volumeConfigurations": "volumes can not be configured at launch yet",
		},
	},
	"TaskOverride": {
		honoured: "containerOverrides cpu ephemeralStorage executionRoleArn memory taskRoleArn",
		refused: map[string]string{
			"inferenceAcceleratorOverrides": "there are no Elastic Inference accelerators",
		},
	},
	"ContainerOverride": {
		honoured: "command cpu environment environmentFiles memory memoryReservation name resourceRequirements",
		notes: map[string]string{
			"environmentFiles":     "instead of the definition's, which they replace as a whole",
			"resourceRequirements": "instead of the definition's",
		},
	},
	"CapacityProviderStrategyItem": {honoured: "base capacityProvider weight"},
	"PlacementConstraint":          {honoured: "expression type"},
	"PlacementStrategy":            {honoured: "field type"},
	"NetworkConfiguration":         {honoured: "awsvpcConfiguration"},
	"AwsVpcConfiguration": {
		honoured: "securityGroups subnets",
		notes: map[string]string{
			"securityGroups": "enforced by both drivers (TestTasksOfDifferentHosts, TestSecurityGroups, TestTasksOfTwoHosts); where the docker driver's engine is not on its host, a task that names other groups than its VPC's default one does not start",
		},
		ignored: map[string]string{
			"assignPublicIp": "what a task can reach and who reaches it depends on its node's network",
		},
	},

	"CreateServiceInput": {
		honoured: "availabilityZoneRebalancing capacityProviderStrategy clientToken cluster deploymentConfiguration deploymentController desiredCount enableECSManagedTags enableExecuteCommand " +
			"healthCheckGracePeriodSeconds launchType loadBalancers networkConfiguration placementConstraints placementStrategy platformVersion " +
			"propagateTags schedulingStrategy serviceName serviceRegistries tags taskDefinition",
		ignored: map[string]string{
			"role": "the platform registers targets with rights of its own",
		},
		notes:   map[string]string{"availabilityZoneRebalancing": "ENABLED by default, as on AWS; of the service's zones, those count that have hosts that take tasks (TestRebalancing)"},
		refused: refusedOfServices,
	},
	"UpdateServiceInput": {
		honoured: "availabilityZoneRebalancing capacityProviderStrategy cluster deploymentConfiguration deploymentController desiredCount enableECSManagedTags enableExecuteCommand forceNewDeployment " +
			"healthCheckGracePeriodSeconds loadBalancers networkConfiguration placementConstraints placementStrategy platformVersion " +
			"propagateTags service serviceRegistries taskDefinition",
		refused: refusedOfServices,
		notes:   map[string]string{"availabilityZoneRebalancing": "see CreateServiceInput"},
	},
	"DeploymentConfiguration": {
		honoured: "deploymentCircuitBreaker maximumPercent minimumHealthyPercent strategy",
		refused: map[string]string{
			"alarms":               "deployments do not watch alarms yet",
			"bakeTimeInMinutes":    "only rolling deployments exist yet",
			"canaryConfiguration":  "only rolling deployments exist yet",
			"earlySuccessCriteria": "only rolling deployments exist yet",
			"lifecycleHooks":       "deployments have no hooks yet",
			"linearConfiguration":  "only rolling deployments exist yet",
		},
	},
	"DeploymentCircuitBreaker": {honoured: "enable resetOnHealthyTask rollback thresholdConfiguration"},
	"ThresholdConfiguration":   {honoured: "type value"},
	"DeploymentController":     {honoured: "type"},
	"LoadBalancer": {
		honoured: "containerName containerPort targetGroupArn",
		refused: map[string]string{
			"advancedConfiguration": "only rolling deployments exist yet",
			"loadBalancerName":      "there are no Classic Load Balancers: name a target group",
		},
	},
	"ServiceRegistry": {honoured: "containerName containerPort port registryArn"},

	"CreateClusterInput": {
		honoured: "capacityProviders clusterName configuration defaultCapacityProviderStrategy tags",
		ignored:  ignoredOfClusters,
	},
	"UpdateClusterInput":                   {honoured: "cluster configuration", ignored: ignoredOfClusters},
	"ClusterSetting":                       {honoured: "name value"},
	"ClusterServiceConnectDefaultsRequest": {honoured: "namespace"},
	"ClusterConfiguration": {
		honoured: "executeCommandConfiguration",
		refused:  map[string]string{"managedStorageConfiguration": "storage is not encrypted with keys of your own yet"},
	},
	"ExecuteCommandConfiguration": {
		honoured: "logConfiguration logging",
		notes: map[string]string{
			"logConfiguration": "with logging OVERRIDE only",
			"logging": "what sessions show goes to CloudWatch Logs by what the task's role may, as on AWS, and with the platform's own rights where the task has none; " +
				"every session is recorded in the log of its server besides; shown by TestExecIsLogged and TestSessionsAreLoggedThroughTheLeader",
		},
		refused: map[string]string{
			"kmsKeyId": "sessions are not encrypted with keys of your own",
		},
	},
	"ExecuteCommandLogConfiguration": {
		honoured: "cloudWatchLogGroupName s3BucketName s3EncryptionEnabled s3KeyPrefix",
		notes: map[string]string{
			"s3BucketName": "in the S3-compatible store that the operator names (--s3-endpoint, with credentials), and refused without; an object SESSION.log once the session is over, of 256 MiB at most, " +
				"if the task's role may s3:PutObject; shown by TestSessionIsKeptInABucket (versitygw too) and TestExecIsKeptInABucket",
			"s3EncryptionEnabled": "the store is asked for AES256 with each object, and what it refuses is not kept; on ECS sessions end where the bucket has no encryption",
			"s3KeyPrefix":         "letters, digits and / _ . - ~",
		},
		refused: map[string]string{
			"cloudWatchEncryptionEnabled": "log groups are not encrypted with keys of your own",
		},
	},
}

var refusedOfServices = map[string]string{
	"gatewayConnectors":           "gateways do not exist yet",
	"monitoring":                  "metrics can not be chosen yet",
	"serviceConnectConfiguration": "Service Connect does not exist yet",
	"volumeConfigurations":        "volumes can not be configured at launch yet",
	"vpcLatticeConfigurations":    "VPC Lattice does not exist",
}

var ignoredOfClusters = map[string]string{
	"serviceConnectDefaults": "it matters to Service Connect alone",
	"settings":               "Container Insights does not exist yet",
}

// refuse fails when in sets a member that is refused.
func refuse(in any) error {
	if v := reflect.ValueOf(in); asksRefused(v) {
		return refuseIn("", v)
	}
	return nil
}

// asksRefused says whether refuseIn will fail. It looks only where something is refused, and writes no paths.
func asksRefused(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && asksRefused(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			if asksRefused(v.Index(i)) {
				return true
			}
		}
	case reflect.Struct:
		for _, m := range refusableOf(v.Type()) {
			if f := v.Field(m.field); m.refused && isSet(f) || !m.refused && asksRefused(f) {
				return true
			}
		}
	}
	return false
}

// refusable is a member that is refused, or within which one is.
type refusable struct {
	field   int
	refused bool
}

var refusables sync.Map // reflect.Type of a struct → []refusable

func refusableOf(t reflect.Type) []refusable {
	if known, ok := refusables.Load(t); ok {
		return known.([]refusable)
	}
	var list []refusable
	s, known := supported[t.Name()]
	for i := range t.NumField() {
		f := t.Field(i)
		if !known || !f.IsExported() {
			continue
		}
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		_, refused := s.refused[wireName(f.Name)]
		if refused || inner.Kind() == reflect.Struct && len(refusableOf(inner)) > 0 {
			list = append(list, refusable{i, refused})
		}
	}
	refusables.Store(t, list)
	return list
}

func refuseIn(path string, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return refuseIn(path, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := refuseIn(path+"["+elementName(v.Index(i), i)+"]", v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		s, known := supported[v.Type().Name()]
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !known || !f.IsExported() || !isSet(v.Field(i)) {
				continue
			}
			at := strings.TrimPrefix(path+"."+wireName(f.Name), ".")
			if why, no := s.refused[wireName(f.Name)]; no {
				return client("'%s' is not supported by this platform: %s.", at, why)
			}
			if err := refuseIn(at, v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// isSet says whether v asks for anything: false, 0, "" and what holds nothing else do not.
func isSet(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && isSet(v.Elem())
	case reflect.Slice, reflect.Map:
		return v.Len() > 0
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && isSet(v.Field(i)) {
				return true
			}
		}
		return false
	default:
		return !v.IsZero()
	}
}

func elementName(v reflect.Value, i int) string {
	if v.Kind() == reflect.Struct {
		if n := v.FieldByName("Name"); n.IsValid() && n.Kind() == reflect.Pointer && !n.IsNil() {
			return n.Elem().String()
		}
	}
	return fmt.Sprint(i)
}

func wireName(goName string) string { return string(unicode.ToLower(rune(goName[0]))) + goName[1:] }
