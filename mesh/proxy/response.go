package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
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
	header  header // without the fields of the connection
	framing framing
	length  int64
	// keep: the connection may carry another request once the body is read.
	keep bool
	// keepFor is the target's "Keep-Alive: timeout"; 0: it did not say.
	keepFor time.Duration
	upgrade string
}

var (
	errMalformed = errors.New("malformed response of the target")
	errHeadLimit = errors.New("head too long")
	errLineLimit = errors.New("first line too long")
	errHeadEnd   = errors.New("ends within its head")
	errBareLF    = errors.New("a line of the head ends without CR LF")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errMalformed, fmt.Errorf(format, args...))
}

// readHead takes the head of a message off br, up to and with its empty line, of limit bytes at most. io.EOF means that nothing came
// at all. Lines are checked by those who parse them, but one that ends in a bare LF is refused here, lest its sender and we
// both wait.
func readHead(br *bufio.Reader, limit int) (string, error) {
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
			if len(long)+end > limit {
				return "", errHeadLimit
			}
			head := ""
			if long == nil {
				head = string(b[:end])
			} else {
				head = string(append(long, b[:end]...))
			}
			br.Discard(end)
			return head, nil
		}
		if bareLF(b[from:]) {
			return "", errBareLF
		}
		seen = len(b)
		if len(b) >= br.Size() {
			// Keep three bytes, for an end mark across the border.
			long = append(long, b[:len(b)-3]...)
			br.Discard(len(b) - 3)
			seen = 3
		}
		if len(long)+seen > limit {
			if bytes.IndexByte(long, '\n') < 0 {
				return "", errLineLimit
			}
			return "", errHeadLimit
		}
		if _, err := br.Peek(seen + 1); err != nil {
			return "", fmt.Errorf("%w: %w", errHeadEnd, err)
		}
	}
}

// bareLF looks for an LF that no CR precedes; a first one may have its CR before b.
func bareLF(b []byte) bool {
	for i := 1; ; i++ {
		k := bytes.IndexByte(b[min(i, len(b)):], '\n')
		if k < 0 {
			return false
		}
		if i += k; b[i-1] != '\r' {
			return true
		}
	}
}

// parse reads a head as readHead returns it, as the answer to a request with method. r's header is reused.
func (r *response) parse(head, method string) error {
	*r = response{length: -1, header: r.header[:0]}
	line, rest, _ := strings.Cut(head, "\r\n")
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') ||
		(line[7] != '0' && line[7] != '1') {
		return malformed("status line %.40q", line)
	}
	status, err := strconv.Atoi(line[9:12])
	if err != nil || status < 100 || status > 599 {
		return malformed("status %q", line[9:12])
	}
	r.status, r.keep = status, line[7] == '1'
	if err := r.parseFields(rest); err != nil {
		return err
	}
	return r.frame(method)
}

// parseFields fills the header; fields of the connection itself are interpreted and left out. What two parsers could read
// differently is refused, since the rest of the connection would then be read as another client's answer.
func (r *response) parseFields(rest string) error {
	connection := ""
	chunked := false
	for {
		f, tail, more, err := cutField(rest)
		if err != nil {
			return malformed("%w", err)
		}
		if !more {
			break
		}
		rest = tail
		switch f.kind {
		case fieldConnection:
			connection += f.value + ","
			continue
		case fieldTransferEncoding:
			if chunked || !strings.EqualFold(f.value, "chunked") {
				return malformed("transfer encoding %q", f.value)
			}
			chunked = true
			continue
		case fieldContentLength:
			n, ok := parseLength(f.value)
			if !ok || (r.length >= 0 && r.length != n) {
				return malformed("content length %q", f.value)
			}
			if r.length >= 0 {
				continue
			}
			r.length = n
		case fieldKeepAlive:
			r.keepFor = keepAliveTimeout(f.value)
			continue
		case fieldProxyConnection, fieldTE:
			continue
		case fieldUpgrade:
			r.upgrade = f.value
			continue
		}
		r.header = append(r.header, f)
	}
	if chunked {
		if r.length >= 0 {
			return malformed("both a content length and chunks")
		}
		r.framing = bodyChunked
	}
	if connection != "" {
		r.keep = !listHas(connection, "close") && (r.keep || listHas(connection, "keep-alive"))
		r.header = r.header.withoutNominated(connection)
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
		r.header = r.header.without(func(f *field) bool { return f.kind == fieldContentLength })
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
