package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"
)

func readChunked(s string) (body string, trailer header, rest string, err error) {
	br := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(s)), 4<<10)
	b, err := io.ReadAll(&chunkReader{br: br})
	if err == nil {
		trailer, err = readTrailer(br)
	}
	left, _ := io.ReadAll(br)
	return string(b), trailer, string(left), err
}

func TestChunked(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":      {"3\r\nabc\r\n0\r\n\r\nNEXT", "abc"},
		"two":        {"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nNEXT", "abc0123456789"},
		"empty":      {"0\r\n\r\nNEXT", ""},
		"zeros":      {"0003\r\nabc\r\n000\r\n\r\nNEXT", "abc"},
		"extension":  {"3;a=b\r\nabc\r\n0;c\r\n\r\nNEXT", "abc"},
		"spaced":     {"3 ; a = \"b c\"\r\nabc\r\n0\r\n\r\nNEXT", "abc"},
		"trailer":    {"3\r\nabc\r\n0\r\nX-A: b\r\nHost: evil\r\nX-C: d\r\n\r\nNEXT", "abc|X-A=b|X-C=d"},
		"CR LF data": {"4\r\n\r\n\r\n\r\n0\r\n\r\nNEXT", "\r\n\r\n"},
	} {
		body, trailer, rest, err := readChunked(c.in)
		for _, f := range trailer {
			body += "|" + f.name + "=" + f.value
		}
		if err != nil || body != c.want || rest != "NEXT" {
			t.Errorf("%s: %q, then %q, %v; want %q", name, body, rest, err, c.want)
		}
	}
	for name, in := range map[string]string{
		"bare LF":            "3\nabc\r\n0\r\n\r\n",
		"bare LF at the end": "3\r\nabc\r\n0\n\r\n",
		"bare LF after data": "3\r\nabc\n0\r\n\r\n",
		"no size":            "\r\nabc\r\n0\r\n\r\n",
		"sign":               "+3\r\nabc\r\n0\r\n\r\n",
		"prefix":             "0x3\r\nabc\r\n0\r\n\r\n",
		"space before":       " 3\r\nabc\r\n0\r\n\r\n",
		"space after":        "3 \r\nabc\r\n0\r\n\r\n",
		"no hex":             "g\r\nabc\r\n0\r\n\r\n",
		"too large":          "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
		"CR in extension":    "3;a\rb\r\nabc\r\n0\r\n\r\n",
		"long extension":     "3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n",
		"many extensions":    strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 100) + "0\r\n\r\n",
		"longer than said":   "3\r\nabcd\r\n0\r\n\r\n",
		"shorter than said":  "5\r\nabc\r\n0\r\n\r\n",
		"ends in a chunk":    "5\r\nab",
		"ends after a chunk": "3\r\nabc\r\n",
		"ends in the line":   "3",
		"ends at the end":    "3\r\nabc\r\n0\r\n",
		"length in trailer":  "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
		"chunks in trailer":  "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"folded trailer":     "3\r\nabc\r\n0\r\nX-A: b\r\n c\r\n\r\n",
		"bare LF in trailer": "3\r\nabc\r\n0\r\nX-A: b\n\r\n",
		"long trailer":       "3\r\nabc\r\n0\r\nX-A: " + strings.Repeat("a", maxTrailer) + "\r\n\r\n",
	} {
		if body, _, _, err := readChunked(in); err == nil || err == io.EOF {
			t.Errorf("%s: read %q without an error (%v)", name, body, err)
		}
	}
}

// FuzzChunked: what is accepted is what net/http's reader reads of it, and it comes out again when framed anew.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("00a\r\n0123456789\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		body, trailer, _, err := readChunked(string(in))
		if err != nil {
			return
		}
		std, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil || string(std) != body {
			t.Errorf("%q: we read %q, net/http %q, %v", in, body, std, err)
		}
		again, _, rest, err := readChunked(string(appendLastChunk(appendChunk(nil, []byte(body)), trailer)))
		if err != nil || again != body || rest != "" {
			t.Errorf("%q: framed anew it is %q, then %q, %v", in, again, rest, err)
		}
	})
}
