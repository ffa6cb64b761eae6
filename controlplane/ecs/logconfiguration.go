package ecs

import (
	"cmp"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/logtag"
)

// logOptions are the options that a log driver takes here, by name, each with the check of its value. Those of Docker's drivers are Docker's.
var logOptions = map[types.LogDriver]map[string]func(string) bool{
	types.LogDriverAwslogs: {
		"awslogs-group": notEmpty, "awslogs-region": notEmpty, "awslogs-stream-prefix": notEmpty, "awslogs-create-group": isBool,
		"awslogs-datetime-format": notEmpty, "awslogs-multiline-pattern": isRegexp, "mode": isMode, "max-buffer-size": isSize,
	},
	types.LogDriverJsonFile: withAttributes(map[string]func(string) bool{"max-size": isSize, "max-file": isCount}),
	types.LogDriverFluentd: withAttributes(map[string]func(string) bool{
		"fluentd-address": isFluentdAddress, "fluentd-async": isBool, "fluentd-buffer-limit": isSize, "fluentd-max-retries": isNumber,
		"fluentd-request-ack": isBool, "fluentd-retry-wait": isDuration, "fluentd-sub-second-precision": isBool, "fluentd-write-timeout": isDuration,
	}),
	types.LogDriverSyslog: withAttributes(map[string]func(string) bool{
		"syslog-address": isSyslogAddress, "syslog-facility": isFacility, "syslog-format": isSyslogFormat, "syslog-tls-ca-cert": path.IsAbs,
		"syslog-tls-cert": path.IsAbs, "syslog-tls-key": path.IsAbs, "syslog-tls-skip-verify": isBool,
	}),
	types.LogDriverGelf: withAttributes(map[string]func(string) bool{
		"gelf-address": isGelfAddress, "gelf-compression-level": isCompressionLevel, "gelf-compression-type": isCompression, "gelf-tcp-max-reconnect": isNumber,
		"gelf-tcp-reconnect-delay": isNumber,
	}),
	types.LogDriverSplunk: withAttributes(map[string]func(string) bool{
		"splunk-url": isSplunkURL, "splunk-token": notEmpty, "splunk-source": notEmpty, "splunk-sourcetype": notEmpty, "splunk-index": notEmpty,
		"splunk-capath": path.IsAbs, "splunk-caname": notEmpty, "splunk-insecureskipverify": isBool, "splunk-format": isSplunkFormat,
		"splunk-verify-connection": isBool, "splunk-gzip": isBool, "splunk-gzip-level": isCompressionLevel, "splunk-index-acknowledgment": isBool,
	}),
	types.LogDriverJournald: withAttributes(map[string]func(string) bool{}),
	logDriverNone:           {},
}

// withAttributes adds what all of Docker's drivers take.
func withAttributes(options map[string]func(string) bool) map[string]func(string) bool {
	maps.Copy(options, map[string]func(string) bool{"labels": notEmpty, "labels-regex": isRegexp, "env": notEmpty, "env-regex": isRegexp,
		"tag": isTag, "mode": isMode, "max-buffer-size": isSize})
	return options
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

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

func isDuration(s string) bool {
	d, err := time.ParseDuration(s)
	return err == nil && d >= 0
}

func isTag(s string) bool { return logtag.Check(s) == nil }

// isAddress says whether s is scheme://place, the place being a path for sockets and HOST or HOST:PORT otherwise.
func isAddress(s string, schemes ...string) bool {
	scheme, place, ok := strings.Cut(s, "://")
	switch {
	case !ok || !slices.Contains(schemes, scheme):
		return false
	case strings.HasPrefix(scheme, "unix"):
		return path.IsAbs(place)
	}
	u, err := url.Parse("x://" + place)
	if err != nil || u.Hostname() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" {
		return false
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "1"), 10, 16)
	return err == nil && port > 0
}

func isSyslogAddress(s string) bool {
	return isAddress(s, "tcp", "udp", "tcp+tls", "unix", "unixgram")
}

func isFluentdAddress(s string) bool {
	return isAddress(s, "tcp", "tls", "unix") || !strings.Contains(s, "://") && isAddress("tcp://"+s, "tcp")
}

// isGelfAddress: GELF has no port of its own.
func isGelfAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Port() != "" && isAddress(s, "tcp", "udp")
}

func isSplunkURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
}

func isSplunkFormat(s string) bool { return s == "inline" || s == "json" || s == "raw" }

func isCompression(s string) bool { return s == "gzip" || s == "zlib" || s == "none" }

func isCompressionLevel(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && -1 <= n && n <= 9
}

func isSyslogFormat(s string) bool {
	return s == "rfc3164" || s == "rfc5424" || s == "rfc5424micro"
}

func isFacility(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 0 && n <= 11 || n >= 16 && n <= 23
	}
	return slices.Contains(strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp local0 local1 local2 local3 local4 local5 local6 local7"), s)
}

// sizePattern is a size as Docker takes them: 10m, 512k, 1g.
var sizePattern = regexp.MustCompile(`^[1-9][0-9]{0,8}[bkmgBKMG]?$`)

// checkLog checks where a container's output goes. Drivers that would take it elsewhere are refused by name.
func checkLog(name string, l *types.LogConfiguration) error {
	if l == nil {
		return nil
	}
	if l.LogDriver == types.LogDriverAwsfirelens {
		return checkRoutedLog(name, l)
	}
	known, ok := logOptions[l.LogDriver]
	if !ok {
		return client("'containerDefinitions[%s].logConfiguration.logDriver' is not supported by this platform: "+
			"use awsfirelens, awslogs, fluentd, gelf, journald, json-file, splunk or syslog, not %s.", name, l.LogDriver)
	}
	if l.LogDriver == types.LogDriverAwslogs {
		if lacking := lackingOptions(l, "awslogs-region", "awslogs-group"); len(lacking) > 0 {
			return client("Log driver awslogs requires options: %s", strings.Join(lacking, ", "))
		}
	}
	if l.LogDriver == types.LogDriverGelf {
		if lacking := lackingOptions(l, "gelf-address"); len(lacking) > 0 {
			return client("Log driver gelf requires options: %s", strings.Join(lacking, ", "))
		}
		known = maps.Clone(known)
		maps.DeleteFunc(known, func(option string, _ func(string) bool) bool { // those of the other transport
			return strings.HasPrefix(option, map[bool]string{true: "gelf-compression-", false: "gelf-tcp-"}[strings.HasPrefix(l.Options["gelf-address"], "tcp:")])
		})
	}
	if l.LogDriver == types.LogDriverSplunk {
		if lacking := lackingOptions(l, "splunk-token", "splunk-url"); len(lacking) > 0 {
			return client("Log driver splunk requires options: %s", strings.Join(lacking, ", "))
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
	case l.Options["max-buffer-size"] != "" && l.Options["mode"] == "blocking":
		return client("Option 'max-buffer-size' is only valid with mode 'non-blocking': container '%s'.", name)
	}
	return nil
}

// lackingOptions are those that are neither plain nor secret.
func lackingOptions(l *types.LogConfiguration, options ...string) (lacking []string) {
	for _, o := range options {
		secret := slices.ContainsFunc(l.SecretOptions, func(s types.Secret) bool { return aws.ToString(s.Name) == o })
		if l.Options[o] == "" && !secret {
			lacking = append(lacking, o)
		}
	}
	return lacking
}

// checkFargateLog says what keeps a container's log configuration from running on Fargate.
func checkFargateLog(c types.ContainerDefinition) error {
	l := c.LogConfiguration
	switch {
	case l == nil, l.LogDriver == types.LogDriverAwsfirelens:
		return nil
	case l.LogDriver == types.LogDriverSplunk:
		return nil
	case l.LogDriver != types.LogDriverAwslogs:
		return client("Fargate does not support log driver %s: container '%s'.", l.LogDriver, aws.ToString(c.Name))
	case l.Options["awslogs-stream-prefix"] == "":
		return client("Log driver awslogs requires options: awslogs-stream-prefix")
	}
	return nil
}
