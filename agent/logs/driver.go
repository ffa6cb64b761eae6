package logs

import (
	"strconv"
	"strings"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// The log drivers whose options matter to who keeps a container's output on the host.
const (
	DriverNone     = "none"
	DriverJSONFile = "json-file"
)

// Limit is how much a container's log may take on disk: with driver json-file and a max-size, that times max-file (1 unless given);
// otherwise what the host says.
func Limit(c *agentapi.LogConfiguration, host int64) int64 {
	size := Size(c.GetOptions()["max-size"])
	if c.GetDriver() != DriverJSONFile || size == 0 {
		return host
	}
	files, err := strconv.ParseInt(c.Options["max-file"], 10, 32)
	if err != nil || files < 1 {
		files = 1
	}
	return size * files
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
