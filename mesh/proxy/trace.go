package proxy

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// appendTrace writes the X-Amzn-Trace-Id for the target: a new root, or the client's with this hop as "Self" in front.
func appendTrace(b []byte, given string, at time.Time) []byte {
	if !strings.Contains(given, "Root=") {
		b = appendTraceID(append(b, "Root="...), at)
		if given != "" {
			b = append(append(b, ';'), given...)
		}
		return b
	}
	b = append(appendTraceID(append(b, "Self="...), at), ';')
	first := true
	for part := range strings.SplitSeq(given, ";") {
		if strings.HasPrefix(part, "Self=") { // of the hop before
			continue
		}
		if !first {
			b = append(b, ';')
		}
		b, first = append(b, part...), false
	}
	return b
}

// appendTraceID writes "1-", the time in eight hexadecimal digits, and 24 random ones.
func appendTraceID(b []byte, at time.Time) []byte {
	b = append(b, "1-"...)
	b = strconv.AppendUint(b, uint64(at.Unix()), 16)
	b = append(b, '-')
	var r [12]byte
	x, y := rand.Uint64(), rand.Uint32()
	for i := range 8 {
		r[i] = byte(x >> (8 * i))
	}
	for i := range 4 {
		r[8+i] = byte(y >> (8 * i))
	}
	return hex.AppendEncode(b, r[:])
}
