package logs

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// jsonRecord is a line as Docker's driver json-file keeps it.
func jsonRecord(out *bytes.Buffer, at time.Time, stderr bool, text []byte, partial bool, attrs []byte) {
	out.WriteString(`{"log":"`)
	jsonText(out, text)
	if !partial {
		out.WriteString(`\n`)
	}
	if stderr {
		out.WriteString(`","stream":"stderr"`)
	} else {
		out.WriteString(`","stream":"stdout"`)
	}
	out.Write(attrs)
	out.WriteString(`,"time":"`)
	out.Write(at.AppendFormat(out.AvailableBuffer(), time.RFC3339Nano))
	out.WriteString("\"}\n")
}

// jsonAttributes are a record's, in front of its time.
func jsonAttributes(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	b, err := json.Marshal(attrs)
	if err != nil {
		return nil // there is no map of strings for which that is so
	}
	return append([]byte(`,"attrs":`), b...)
}

// jsonText writes what stands between quotes. Bytes that are no UTF-8 become U+FFFD, as with Docker.
func jsonText(out *bytes.Buffer, text []byte) {
	const hex = "0123456789abcdef"
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && n == 1 {
				out.Write(text[from:i])
				out.WriteString(`\ufffd`)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		out.Write(text[from:i])
		switch c {
		case '"', '\\':
			out.Write([]byte{'\\', c})
		case '\t':
			out.WriteString(`\t`)
		case '\r':
			out.WriteString(`\r`)
		default:
			out.Write([]byte{'\\', 'u', '0', '0', hex[c>>4], hex[c&15]})
		}
		i++
		from = i
	}
	out.Write(text[from:])
}

func parseJSON(b []byte) (runtime.LogLine, bool) {
	var r struct {
		Log, Stream string
		Time        time.Time
	}
	if json.Unmarshal(b, &r) != nil || r.Time.IsZero() {
		return runtime.LogLine{}, false
	}
	text, whole := strings.CutSuffix(r.Log, "\n")
	return runtime.LogLine{At: r.Time, Stderr: r.Stream == "stderr", Partial: !whole, Text: text}, true
}
