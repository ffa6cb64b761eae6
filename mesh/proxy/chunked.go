package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

const (
	// maxChunkLine bounds a chunk's first line: its size and its extensions, which are read over.
	maxChunkLine = 256
	// maxChunkExtensions bounds the extensions of one body, so that it cannot consist of them.
	maxChunkExtensions = 16 << 10
	maxTrailer         = 16 << 10
)

var errChunk = errors.New("malformed chunk")

// chunkReader reads a chunked body off br up to and with its last chunk; what follows is the trailer. It is strict: lines end with
// CR LF, a size has hexadecimal digits alone, extensions have no control characters. The zero value reads nothing.
type chunkReader struct {
	br         *bufio.Reader
	left       int64 // of the current chunk
	begun      bool  // a chunk was read, so that its CR LF comes first
	extensions int
	err        error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		if c.err = c.next(); c.err != nil {
			return 0, c.err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.br.Read(p)
	c.left -= int64(n)
	c.err = unexpected(err)
	return n, c.err
}

// next reads the line before a chunk; io.EOF after the last chunk's.
func (c *chunkReader) next() error {
	if c.begun {
		line, err := c.br.Peek(2)
		if err != nil {
			return unexpected(err)
		}
		if line[0] != '\r' || line[1] != '\n' {
			return errChunk
		}
		c.br.Discard(2)
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	digits := 0
	for digits < len(line) && isHex(line[digits]) {
		digits++
	}
	if digits == 0 || digits > 15 {
		return errChunk
	}
	size, _ := strconv.ParseInt(string(line[:digits]), 16, 64)
	if rest := bytes.TrimLeft(line[digits:], " \t"); len(rest) > 0 {
		if c.extensions += len(rest); rest[0] != ';' || !isFieldValue(string(rest)) || c.extensions > maxChunkExtensions {
			return errChunk
		}
	} else if len(line) > digits {
		return errChunk // white space that nothing follows
	}
	if size == 0 {
		return io.EOF
	}
	c.left, c.begun = size, true
	return nil
}

// line is the next line without its CR LF, part of br's buffer.
func (c *chunkReader) line() ([]byte, error) {
	for n := 1; ; {
		if _, err := c.br.Peek(n); err != nil {
			return nil, unexpected(err)
		}
		b, _ := c.br.Peek(min(c.br.Buffered(), maxChunkLine))
		if i := bytes.IndexByte(b, '\n'); i >= 1 && b[i-1] == '\r' {
			c.br.Discard(i + 1)
			return b[:i-1], nil
		} else if i >= 0 || len(b) == maxChunkLine {
			return nil, errChunk
		}
		n = len(b) + 1
	}
}

// unexpected makes the end of the input what it is within a body.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readTrailer reads the fields after the last chunk, up to and with the empty line. They may not speak of the framing.
func readTrailer(br *bufio.Reader) (header, error) {
	if b, err := br.Peek(2); err != nil {
		return nil, unexpected(err)
	} else if b[0] == '\r' && b[1] == '\n' {
		br.Discard(2)
		return nil, nil
	}
	rest, err := readHead(br, maxTrailer)
	if err != nil {
		return nil, unexpected(err)
	}
	var h header
	for {
		f, tail, more, err := cutField(rest)
		switch {
		case err != nil:
			return nil, err
		case !more:
			return h, nil
		case f.kind == fieldContentLength || f.kind == fieldTransferEncoding:
			return nil, errors.New("framing in the trailer")
		case !f.kind.ofRequest(): // what the proxy speaks for itself is not told by others afterwards
			h = append(h, f)
		}
		rest = tail
	}
}

// appendChunk frames b as one chunk.
func appendChunk(to, b []byte) []byte {
	if len(b) == 0 {
		return to // an empty chunk would end the body
	}
	to = append(strconv.AppendInt(to, int64(len(b)), 16), "\r\n"...)
	return append(append(to, b...), "\r\n"...)
}

// appendLastChunk ends a body.
func appendLastChunk(to []byte, trailer header) []byte {
	to = append(to, "0\r\n"...)
	for i := range trailer {
		to = appendField(to, trailer[i].name, trailer[i].value)
	}
	return append(to, "\r\n"...)
}
