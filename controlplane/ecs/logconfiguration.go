package ecs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// logOptions are the options that a log driver takes here, by name, each with the check of its value.
var logOptions = map[types.LogDriver]map[string]func(string) bool{
	types.LogDriverAwslogs: {
		"awslogs-group": notEmpty, "awslogs-region": notEmpty, "awslogs-stream-prefix": notEmpty, "awslogs-create-group": isBool,
		"awslogs-datetime-format": notEmpty, "awslogs-multiline-pattern": isRegexp, "mode": isMode, "max-buffer-size": isSize,
	},
	types.LogDriverJsonFile: {"max-size": isSize, "max-file": isCount},
	logDriverNone:           {},
}

// logDriverNone keeps nothing. The API does not list it; the agent of ECS has it.
const logDriverNone types.LogDriver = "none"

func notEmpty(s string) bool { return s != "" }
func isBool(s string) bool   { return s == "true" || s == "false" }
func isMode(s string) bool   { return s == "blocking" || s == "non-blocking" }
func isSize(s string) bool   { return sizePattern.MatchString(s) }

func isRegexp(s string) bool {
	_, err := regexp.Compile(s)
	return s != "" && err == nil
}

func isCount(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0
}

// sizePattern is a size as Docker takes them: 10m, 512k, 1g.
var sizePattern = regexp.MustCompile(`^[1-9][0-9]{0,8}[bkmgBKMG]?$`)

// checkLog checks where a container's output goes. Drivers that would take it elsewhere are refused by name.
func checkLog(name string, l *types.LogConfiguration) error {
	if l == nil {
		return nil
	}
	known, ok := logOptions[l.LogDriver]
	if !ok {
		return client("'containerDefinitions[%s].logConfiguration.logDriver' is not supported by this platform: "+
			"use awslogs or json-file, not %s.", name, l.LogDriver)
	}
	if l.LogDriver == types.LogDriverAwslogs {
		if lacking := lackingOptions(l, "awslogs-region", "awslogs-group"); len(lacking) > 0 {
			return client("Log driver awslogs requires options: %s", strings.Join(lacking, ", "))
		}
	}
	var foreign []string
	for option := range l.Options {
		if known[option] == nil {
			foreign = append(foreign, option)
		}
	}
	if slices.Sort(foreign); len(foreign) > 0 {
		return client("Log driver %s disallows options: %s", l.LogDriver, strings.Join(foreign, ", "))
	}
	for option, value := range l.Options {
		if !known[option](value) {
			return client("Invalid value '%s' of option '%s' in the log configuration of container '%s'.", value, option, name)
		}
	}
	switch {
	case l.Options["awslogs-datetime-format"] != "" && l.Options["awslogs-multiline-pattern"] != "":
		return client("You cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time: container '%s'.", name)
	case l.Options["max-buffer-size"] != "" && l.Options["mode"] != "non-blocking":
		return client("Option 'max-buffer-size' is only valid with mode 'non-blocking': container '%s'.", name)
	}
	return nil
}

func lackingOptions(l *types.LogConfiguration, options ...string) (lacking []string) {
	for _, o := range options {
		if l.Options[o] == "" {
			lacking = append(lacking, o)
		}
	}
	return lacking
}

// checkFargateLog says what keeps a container's log configuration from running on Fargate.
func checkFargateLog(c types.ContainerDefinition) error {
	l := c.LogConfiguration
	switch {
	case l == nil:
		return nil
	case l.LogDriver != types.LogDriverAwslogs:
		return client("Fargate does not support log driver %s: container '%s'.", l.LogDriver, aws.ToString(c.Name))
	case l.Options["awslogs-stream-prefix"] == "":
		return client("Log driver awslogs requires options: awslogs-stream-prefix")
	}
	return nil
}
