package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// maxResponseHead bounds what a target may send before its body.
const maxResponseHead = 64 << 10

// framing says where a response's body ends.
type framing uint8

const (
	bodyNone framing = iota
	bodyLength
	bodyChunked
	bodyUntilClose
)

// response is the head of a target's answer.
type response struct {
	status  int
	header  http.Header
	framing framing
	length  int64
	// keep: the connection may carry another request once the body is read.
	keep bool
	// keepFor is the target's "Keep-Alive: timeout"; 0: it did not say.
	keepFor time.Duration
	upgrade string
}

var errMalformed = errors.New("malformed response of the target")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// readHead takes a response head off br, strictly: what two parsers could read differently is refused, since the
// rest of the connection would then be read as another client's answer. io.EOF means that nothing came at all.
func readHead(br *bufio.Reader) (string, error) {
	if _, err := br.Peek(1); err != nil {
		return "", err
	}
	seen := 0
	var long []byte // what did not fit br's buffer
	for {
		b, _ := br.Peek(br.Buffered())
		from := max(0, seen-3)
		if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
			end := from + i + 4
			if len(long)+end > maxResponseHead {
				return "", malformed("head above %d bytes", maxResponseHead)
			}
			head := string(append(long, b[:end]...))
			br.Discard(end)
			return head, nil
		}
		seen = len(b)
		if len(b) >= br.Size() {
			// Keep three bytes, for an end mark across the border.
			long = append(long, b[:len(b)-3]...)
			br.Discard(len(b) - 3)
			if len(long) > maxResponseHead {
				return "", malformed("head above %d bytes", maxResponseHead)
			}
			seen = 3
		}
		if _, err := br.Peek(seen + 1); err != nil {
			return "", malformed("ends within its head: %v", err)
		}
	}
}

// parseHead reads a head as readHead returns it, as the answer to a request with method.
func parseHead(head, method string) (*response, error) {
	line, rest, _ := strings.Cut(head, "\r\n")
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') ||
		(line[7] != '0' && line[7] != '1') {
		return nil, malformed("status line %.40q", line)
	}
	status, err := strconv.Atoi(line[9:12])
	if err != nil || status < 100 || status > 599 {
		return nil, malformed("status %q", line[9:12])
	}
	r := &response{status: status, length: -1, keep: line[7] == '1', header: make(http.Header, 12)}
	if err := r.parseFields(rest); err != nil {
		return nil, err
	}
	return r, r.frame(method)
}

// parseFields fills the header; fields of the connection itself are interpreted and left out.
func (r *response) parseFields(rest string) error {
	values := make([]string, strings.Count(rest, "\n")) // one backing array for all single values
	var connection []string
	chunked := false
	for rest != "\r\n" {
		line, tail, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return malformed("header ends early")
		}
		rest = tail
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return malformed("header line %.40q", line)
		}
		value = strings.Trim(value, " \t")
		if !isFieldValue(value) {
			return malformed("value of %s", name)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Connection":
			connection = append(connection, strings.Split(value, ",")...)
			continue
		case "Transfer-Encoding":
			if chunked || !strings.EqualFold(value, "chunked") {
				return malformed("transfer encoding %q", value)
			}
			chunked = true
			continue
		case "Content-Length":
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || (r.length >= 0 && r.length != int64(n)) {
				return malformed("content length %q", value)
			}
			if r.length >= 0 {
				continue
			}
			r.length = int64(n)
		case "Keep-Alive":
			r.keepFor = keepAliveTimeout(value)
			continue
		case "Proxy-Connection", "Te":
			continue
		case "Upgrade":
			r.upgrade = value
			continue
		}
		if old, ok := r.header[name]; ok {
			r.header[name] = append(old, value)
			continue
		}
		values[0] = value
		r.header[name] = values[:1:1]
		values = values[1:]
	}
	if chunked {
		if r.length >= 0 {
			return malformed("both a content length and chunks")
		}
		r.framing = bodyChunked
	}
	for _, c := range connection {
		switch c = strings.Trim(c, " \t"); {
		case strings.EqualFold(c, "close"):
			r.keep = false
		case strings.EqualFold(c, "keep-alive"):
			r.keep = true
		case c != "" && !strings.EqualFold(c, "Content-Length") && !strings.EqualFold(c, "Transfer-Encoding"):
			delete(r.header, textproto.CanonicalMIMEHeaderKey(c))
		}
	}
	return nil
}

// frame decides how the body ends (RFC 9112 §6.3).
func (r *response) frame(method string) error {
	switch {
	case r.status < 200 || r.status == 204:
		if r.framing == bodyChunked || r.length > 0 {
			return malformed("status %d with a body", r.status)
		}
		delete(r.header, "Content-Length")
		r.framing = bodyNone
	case method == http.MethodHead || r.status == 304:
		r.framing = bodyNone
	case r.framing == bodyChunked:
	case r.length == 0:
		r.framing = bodyNone
	case r.length > 0:
		r.framing = bodyLength
	default:
		r.framing, r.keep = bodyUntilClose, false
	}
	return nil
}

// keepAliveTimeout reads "timeout=5, max=100".
func keepAliveTimeout(v string) time.Duration {
	for part := range strings.SplitSeq(v, ",") {
		if s, ok := strings.CutPrefix(strings.TrimSpace(part), "timeout="); ok {
			if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 1<<20 {
				return time.Duration(n) * time.Second
			}
		}
	}
	return 0
}

// readTrailers reads the fields after the last chunk, up to and with the empty line.
func readTrailers(br *bufio.Reader) (http.Header, error) {
	if b, err := br.Peek(2); err != nil {
		return nil, malformed("ends before its trailer: %v", err)
	} else if string(b) == "\r\n" {
		br.Discard(2)
		return nil, nil
	}
	head, err := readHead(br)
	if err != nil {
		return nil, err
	}
	r := response{length: -1, header: http.Header{}}
	if err := r.parseFields(head); err != nil {
		return nil, err
	}
	if r.length >= 0 || r.framing != bodyNone {
		return nil, malformed("framing in the trailer")
	}
	return r.header, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}

// tokenByte has the characters of an RFC 9110 token.
var tokenByte = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
