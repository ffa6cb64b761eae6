package logs

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The log drivers that this package knows. What it does not know it takes for one whose output is kept on the host, and no more.
const (
	DriverNone     = "none"
	DriverJSONFile = "json-file"
	DriverAWSLogs  = "awslogs"
	DriverFluentd  = "fluentd"
	DriverSyslog   = "syslog"
	DriverGELF     = "gelf"
	DriverSplunk   = "splunk"
	DriverJournald = "journald"
	DriverFireLens = "awsfirelens" // fluentd, to the log router of the task; whoever makes a Config says where that is
)

// Config says what becomes of a container's output. It is made where the container's specification is known, and goes to the process
// that holds the other end of its pipes.
type Config struct {
	Driver  string
	Options map[string]string // as in the task definition; options.go reads them
	Path    string            // of the log on this host
	Limit   int64             // bytes it may take, unless the driver's options say so; 0: DefaultLimit
	Tag     string            // rendered
	ID      string            // the container's
	Name    string
	Attrs   map[string]string // of labels and environment, by the options labels and env
	Image   Image             // and what runs of it; for drivers that tell
}

// Image is what a container was made of.
type Image struct {
	ID, Name string
	Command  string
	Created  time.Time // the container
}

// options are a driver's, read. This is the one place that knows how they are spelled.
type options struct {
	queued bool  // mode non-blocking: what the driver cannot take at once waits, up to buffer bytes, and the newest is dropped
	buffer int64 // of what waits
	size   int64 // json-file: of one file
	files  int   // of the log

	network, address string
	retryWait        time.Duration
	retries          int
	async            bool
	subsecond, ack   bool

	facility   int
	format     string
	tls        tlsOptions
	writeLimit time.Duration
	gelf       gelfOptions
	splunk     splunkOptions
}

type tlsOptions struct {
	ca, cert, key string
	skipVerify    bool
}

// The mode of drivers unless the options say otherwise, and what waits then: ECS's since June 2025.
const (
	defaultMode   = "non-blocking"
	defaultBuffer = "10m"
)

// EngineOptions are the options as an engine of Docker takes them, whose own default is another mode.
func EngineOptions(driver string, given map[string]string) map[string]string {
	opt := maps.Clone(given)
	if opt == nil {
		opt = map[string]string{}
	}
	if driver != DriverNone && opt["mode"] == "" && (driver != DriverJSONFile || opt["max-buffer-size"] != "") {
		opt["mode"] = defaultMode
	}
	if opt["mode"] == defaultMode && opt["max-buffer-size"] == "" {
		opt["max-buffer-size"] = defaultBuffer
	}
	return opt
}

func (c Config) read() (o options, err error) {
	opt := EngineOptions(c.Driver, c.Options)
	o = options{queued: opt["mode"] == defaultMode, buffer: Size(opt["max-buffer-size"])}
	switch c.Driver {
	case DriverJSONFile:
		o.size, o.files = Size(c.Options["max-size"]), 1
		if n, err := strconv.Atoi(c.Options["max-file"]); err == nil && n > 0 {
			o.files = n
		}
	case DriverFluentd:
		return o, o.fluentd(c.Options)
	case DriverSyslog:
		return o, o.syslog(c.Options)
	case DriverGELF:
		return o, o.gelfOf(c.Options)
	case DriverSplunk:
		return o, o.splunkOf(c.Options)
	}
	return o, nil
}

// Layout is how the log is kept on the host: how much one file holds, and how many there are besides.
func (c Config) layout(o options) (size int64, older int) {
	limit := c.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	switch {
	case c.Driver == DriverJSONFile && o.size > 0 && o.files > 1:
		return o.size, o.files - 1
	case c.Driver == DriverJSONFile && o.size > 0: // two halves, lest all go at once
		return o.size / 2, 1
	case c.Driver == DriverAWSLogs && o.queued: // what is not shipped yet waits here
		return max(limit/2, o.buffer), 1
	}
	return limit / 2, 1
}

// Size is a size as Docker takes them (512, 10k, 20m, 1g), in bytes; 0 when it is none.
func Size(s string) int64 {
	s = strings.ToLower(s)
	shift := map[byte]int{'b': 0, 'k': 10, 'm': 20, 'g': 30}
	unit, ok := 0, false
	if s != "" {
		if unit, ok = shift[s[len(s)-1]]; ok {
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return n << unit
}

// Attributes are those of a container's labels and variables that the options labels, labels-regex, env and env-regex name.
func Attributes(opt map[string]string, labels map[string]string, env []string) (map[string]string, error) {
	attrs := map[string]string{}
	variables := map[string]string{}
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		variables[k] = v
	}
	for _, from := range []struct {
		option string
		values map[string]string
	}{{"labels", labels}, {"env", variables}} {
		for name := range strings.SplitSeq(opt[from.option], ",") {
			if v, ok := from.values[name]; ok && name != "" {
				attrs[name] = v
			}
		}
		pattern := opt[from.option+"-regex"]
		if pattern == "" {
			continue
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("log option %s-regex: %w", from.option, err)
		}
		for _, name := range slices.Sorted(maps.Keys(from.values)) {
			if re.MatchString(name) {
				attrs[name] = from.values[name]
			}
		}
	}
	return attrs, nil
}
