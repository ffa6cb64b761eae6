package ecs

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/firelens"
)

// maxBufferLimit is the most that log-driver-buffer-limit can be: 512 MiB.
const maxBufferLimit = 536870912

// checkFireLens holds the log router and those whose output it routes against each other.
func checkFireLens(def *types.TaskDefinition) error {
	routed := slices.ContainsFunc(def.ContainerDefinitions, controlplane.Routed)
	router := controlplane.LogRouter(def.ContainerDefinitions)
	switch {
	case router < 0 && !routed:
		return nil
	case router < 0:
		return client("When awsfirelens log driver is specified in log configuration, a firelens configuration object must be configured in one of the containers.")
	case !routed:
		return client("When a firelensConfiguration object is specified, at least one container has to be configured with the awsfirelens log driver.")
	case controlplane.LogRouter(def.ContainerDefinitions[router+1:]) >= 0:
		return client("At most one container can be configured with a firelensConfiguration object.")
	}
	c := def.ContainerDefinitions[router]
	if err := checkRouter(aws.ToString(c.Name), c.FirelensConfiguration); err != nil {
		return err
	}
	for _, s := range controlplane.FireLensRouter(def.ContainerDefinitions, "").Sources {
		if err := s.Check(string(c.FirelensConfiguration.Type)); err != nil {
			return client("%s.", capital(err))
		}
	}
	return nil
}

func checkRouter(name string, f *types.FirelensConfiguration) error {
	if !slices.Contains(f.Type.Values(), f.Type) {
		return client("Invalid 'firelensConfiguration' setting for container '%s': the type must be fluentd or fluentbit, not '%s'.", name, f.Type)
	}
	known := []string{firelens.OptionMetadata, firelens.OptionFileType, firelens.OptionFileValue}
	var foreign []string
	for option := range f.Options {
		if !slices.Contains(known, option) {
			foreign = append(foreign, option)
		}
	}
	if slices.Sort(foreign); len(foreign) > 0 {
		return client("Invalid 'firelensConfiguration' setting for container '%s': unknown options: %s.", name, strings.Join(foreign, ", "))
	}
	if v, ok := f.Options[firelens.OptionMetadata]; ok && !isBool(v) {
		return client("Invalid 'firelensConfiguration' setting for container '%s': option %s must be true or false, not '%s'.", name, firelens.OptionMetadata, v)
	}
	kind, typed := f.Options[firelens.OptionFileType]
	value := f.Options[firelens.OptionFileValue]
	switch {
	case kind == "s3":
		return client("'containerDefinitions[%s].firelensConfiguration.options.%s' is not supported by this platform with the value s3: use file.", name, firelens.OptionFileType)
	case typed && kind != "file":
		return client("Invalid 'firelensConfiguration' setting for container '%s': option %s must be file or s3, not '%s'.", name, firelens.OptionFileType, kind)
	case !oneLine(value):
		return client("Invalid 'firelensConfiguration' setting for container '%s': option %s must be one line.", name, firelens.OptionFileValue)
	case typed != (value != ""):
		return client("Invalid 'firelensConfiguration' setting for container '%s': options %s and %s must be specified together.", name, firelens.OptionFileType, firelens.OptionFileValue)
	}
	return nil
}

// checkRoutedLog: what the options mean is the router's to know, but for one.
func checkRoutedLog(name string, l *types.LogConfiguration) error {
	if v, ok := l.Options[firelens.OptionBufferLimit]; ok && !isBufferLimit(v) {
		return client("Invalid value '%s' of option '%s' in the log configuration of container '%s'.", v, firelens.OptionBufferLimit, name)
	}
	for _, k := range slices.Sorted(maps.Keys(l.Options)) {
		if k == "" || !oneLine(k) || !oneLine(l.Options[k]) {
			return client("Invalid option '%s' in the log configuration of container '%s': its name and its value must be one line each.", k, name)
		}
	}
	for _, s := range l.SecretOptions {
		switch k := aws.ToString(s.Name); {
		case !oneLine(k):
			return client("Invalid option '%s' in the log configuration of container '%s': its name must be one line.", k, name)
		case k == firelens.OptionBufferLimit:
			return client("Option '%s' in the log configuration of container '%s' can not be secret.", k, name)
		}
	}
	return nil
}

// oneLine says whether text is one line of the router's configuration, and no more than that.
func oneLine(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

func isBufferLimit(s string) bool {
	n, err := strconv.ParseUint(s, 10, 32)
	return err == nil && n <= maxBufferLimit
}
