package wire

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Timestamp formats, as v1 models and Smithy schemas call them.
const (
	httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"
	isoDate  = "2006-01-02T15:04:05.999Z"
)

// The years four digits can spell.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

// parseEpoch reads decimal seconds, exact to the nanosecond.
func parseEpoch(s string) (time.Time, bool) {
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < float64(minTime) || f > float64(maxTime) {
			return time.Time{}, false
		}
		s = strconv.FormatFloat(f, 'f', -1, 64)
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec < minTime || sec > maxTime {
		return time.Time{}, false
	}
	var ns int64
	if frac != "" {
		frac = (frac + "000000000")[:9]
		if ns, err = strconv.ParseInt(frac, 10, 64); err != nil || ns < 0 {
			return time.Time{}, false
		}
		if strings.HasPrefix(whole, "-") {
			ns = -ns
		}
	}
	return time.Unix(sec, ns).UTC(), true
}

// parseDate reads an ISO 8601 or HTTP date.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, httpDate, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// appendEpoch appends seconds, with milliseconds when there are any: the precision AWS answers with.
func appendEpoch(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		b = append(b, '-')
		ms = -ms
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms == 0 {
		return b
	}
	b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendTime appends t as text; the default is ISO 8601.
func appendTime(b []byte, t time.Time, format string) []byte {
	switch format {
	case "unixTimestamp", "epoch-seconds":
		return appendEpoch(b, t)
	case "rfc822", "http-date":
		return t.UTC().AppendFormat(b, httpDate)
	}
	return t.UTC().AppendFormat(b, isoDate)
}

func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, bits)
}

// isScalar says whether the node's value is one text.
func (n *node) isScalar() bool { return n.kind <= kindBlob }

// parse reads a scalar's text, as query parameters, headers and paths carry it, to p. It says what was wanted when it fails.
func (n *node) parse(s string, p unsafe.Pointer) (want string, ok bool) {
	var err error
	switch n.kind {
	case kindString:
		*stringAt(p) = s
	case kindBool:
		switch s {
		case "true", "True", "TRUE", "1":
			*boolAt(p) = true
		case "false", "False", "FALSE", "0":
			*boolAt(p) = false
		default:
			return "a boolean", false
		}
	case kindInt:
		var v int64
		v, err = strconv.ParseInt(s, 10, 32)
		*intAt(p), want = int32(v), "an integer"
	case kindLong:
		*longAt(p), err = strconv.ParseInt(s, 10, 64)
		want = "a long integer"
	case kindFloat, kindDouble:
		return "a number", n.parseFloat(s, p)
	case kindTime:
		t, ok := parseDate(s)
		if !ok {
			t, ok = parseEpoch(s)
		}
		*timeAt(p) = t
		return "a timestamp", ok
	case kindBlob:
		*bytesAt(p), err = base64.StdEncoding.DecodeString(s)
		want = "base64"
	default:
		return "a " + n.shape.Type, false
	}
	return want, err == nil
}

func (n *node) parseFloat(s string, p unsafe.Pointer) bool {
	f, named := namedFloats[s]
	if !named {
		bits := 64
		if n.kind == kindFloat {
			bits = 32
		}
		if strings.Trim(s, "+-.0123456789eE") != "" { // ParseFloat also takes hex, underscores, "inf"
			return false
		}
		var err error
		if f, err = strconv.ParseFloat(s, bits); err != nil {
			return false
		}
	}
	if n.kind == kindFloat {
		*floatAt(p) = float32(f)
	} else {
		*doubleAt(p) = f
	}
	return true
}

// appendText appends a scalar's text, unescaped; def is the timestamp format where the model names none.
func (n *node) appendText(b []byte, p unsafe.Pointer, format, def string) []byte {
	switch n.kind {
	case kindString:
		return append(b, *stringAt(p)...)
	case kindFloat:
		return appendFloat(b, float64(*floatAt(p)), 32)
	case kindDouble:
		return appendFloat(b, *doubleAt(p), 64)
	case kindTime:
		return appendTime(b, *timeAt(p), orElse(format, def))
	case kindBlob:
		return base64.StdEncoding.AppendEncode(b, *bytesAt(p))
	}
	return n.encode(b, p, format)
}
