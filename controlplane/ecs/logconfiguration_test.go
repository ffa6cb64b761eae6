package ecs

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestLogOptions: each driver takes its own options, with values that it can use.
func TestLogOptions(t *testing.T) {
	for text, want := range map[string]string{
		"json-file max-size=10m max-file=3 labels=a,b env-regex=^A tag={{.Name}} mode=non-blocking max-buffer-size=4m":                                                         "",
		"fluentd fluentd-address=h:24224 fluentd-async=true fluentd-retry-wait=2s fluentd-max-retries=0 fluentd-buffer-limit=8m fluentd-sub-second-precision=true tag={{.ID}}": "",
		"fluentd fluentd-address=unix:///run/f.sock fluentd-request-ack=true fluentd-write-timeout=1s":                                                                         "",
		"syslog syslog-address=tcp+tls://[::1]:6514 syslog-facility=local7 syslog-format=rfc5424micro syslog-tls-ca-cert=/etc/ca.pem syslog-tls-skip-verify=true":              "",
		"syslog syslog-address=unixgram:///dev/log syslog-facility=16":                                                                                                         "",
		"none":               "",
		"none mode=blocking": "Log driver none disallows options: mode",
		"fluentd max-size=1m syslog-format=rfc3164": "Log driver fluentd disallows options: max-size, syslog-format",
		"json-file compress=true":                   "Log driver json-file disallows options: compress",
		"json-file tag={{.Nothing}}":                "Invalid value '{{.Nothing}}' of option 'tag'",
		"json-file max-size=10x":                    "'max-size'",
		"json-file env-regex=(":                     "'env-regex'",
		"fluentd fluentd-address=http://h":          "'fluentd-address'",
		"fluentd fluentd-address=h:0":               "'fluentd-address'",
		"fluentd fluentd-address=unix://f.sock":     "'fluentd-address'",
		"fluentd fluentd-retry-wait=2":              "'fluentd-retry-wait'",
		"fluentd fluentd-max-retries=-1":            "'fluentd-max-retries'",
		"syslog syslog-address=h:514":               "'syslog-address'",
		"syslog syslog-address=udp://h:70000":       "'syslog-address'",
		"syslog syslog-facility=local8":             "'syslog-facility'",
		"syslog syslog-facility=12":                 "'syslog-facility'",
		"syslog syslog-format=rfc1":                 "'syslog-format'",
		"syslog syslog-tls-cert=cert.pem":           "'syslog-tls-cert'",
		"syslog mode=sometimes":                     "'mode'",
		"syslog mode=blocking max-buffer-size=1m":   "only valid with mode 'non-blocking'",
		"gelf gelf-address=udp://graylog:12201 gelf-compression-type=zlib gelf-compression-level=9 tag=a env=B": "",
		"gelf gelf-address=tcp://[::1]:12201 gelf-tcp-max-reconnect=5 gelf-tcp-reconnect-delay=2":               "",
		"gelf":                                "Log driver gelf requires options: gelf-address",
		"gelf gelf-address=udp://graylog":     "'gelf-address'",
		"gelf gelf-address=http://graylog:80": "'gelf-address'",
		"gelf gelf-address=udp://graylog:12201 gelf-compression-level=10":                                                                                "'gelf-compression-level'",
		"gelf gelf-address=tcp://graylog:12201 gelf-compression-type=none":                                                                               "Log driver gelf disallows options: gelf-compression-type",
		"gelf gelf-address=udp://graylog:12201 gelf-tcp-max-reconnect=1":                                                                                 "Log driver gelf disallows options: gelf-tcp-max-reconnect",
		"splunk splunk-url=https://hec:8088 splunk-token=t splunk-format=json splunk-gzip=true splunk-gzip-level=9 splunk-capath=/etc/ca.pem tag= env=A": "",
		"splunk": "Log driver splunk requires options: splunk-token, splunk-url",
		"splunk splunk-token=t splunk-url=https://hec/services":              "'splunk-url'",
		"splunk splunk-token=t splunk-url=hec:8088":                          "'splunk-url'",
		"splunk splunk-token=t splunk-url=http://hec splunk-format=xml":      "'splunk-format'",
		"splunk splunk-token=t splunk-url=http://hec splunk-gzip-level=10":   "'splunk-gzip-level'",
		"splunk splunk-token=t splunk-url=http://hec splunk-capath=ca.pem":   "'splunk-capath'",
		"splunk splunk-token=t splunk-url=http://hec gelf-address=udp://a:1": "Log driver splunk disallows options: gelf-address",
		"journald tag={{.Name}} labels=a env-regex=^B":                       "",
		"journald journald-address=x":                                        "Log driver journald disallows options: journald-address",
		"logentries":                                                         "use awsfirelens, awslogs, fluentd, gelf, journald, json-file, splunk or syslog, not logentries",
	} {
		words := strings.Fields(text)
		l := &types.LogConfiguration{LogDriver: types.LogDriver(words[0]), Options: map[string]string{}}
		for _, o := range words[1:] {
			k, v, _ := strings.Cut(o, "=")
			l.Options[k] = v
		}
		err := checkLog("web", l)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
