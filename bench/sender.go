package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"strconv"
	"time"
)

// sender is a client on one connection, which it keeps, with one request at a time. It writes and reads HTTP/1.1 itself, and signs every request
// anew, body included: its headers and those that it signs are the ones of the AWS SDK for Python.
type sender struct {
	conn net.Conn
	r    *bufio.Reader

	host, target string
	signing      hash.Hash // keyed
	signed       time.Time // by the second
	date, scope  string
	line, text   []byte // of the request, of what is signed; used again
}

const (
	sentAs      = "test" // access key id, and its secret
	sentFrom    = "us-east-1"
	sentHeaders = "content-type;host;x-amz-date;x-amz-target"
	sentType    = "application/x-amz-json-1.1"
	sentAgent   = "Boto3/1.43.0 md/Botocore#1.43.0 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.12 md/pyimpl#CPython m/b,Z cfg/retry-mode#legacy Botocore/1.43.0"
)

func dialSender(address, target string) (*sender, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &sender{conn: conn, r: bufio.NewReader(conn), host: address, target: target}, nil
}

// post sends one request of ECS and reads its answer.
func (s *sender) post(body []byte, now time.Time) (status int, answer []byte, err error) {
	s.sign(body, now)
	if _, err := s.conn.Write(s.line); err != nil {
		return 0, nil, err
	}
	return s.answer()
}

// sign makes the request.
func (s *sender) sign(body []byte, now time.Time) {
	if now = now.UTC().Truncate(time.Second); !now.Equal(s.signed) {
		day := now.Format("20060102")
		key := []byte("AWS4" + sentAs)
		for _, part := range []string{day, sentFrom, "ecs", "aws4_request"} {
			m := hmac.New(sha256.New, key)
			m.Write([]byte(part))
			key = m.Sum(nil)
		}
		s.signing, s.signed, s.date = hmac.New(sha256.New, key), now, now.Format("20060102T150405Z")
		s.scope = day + "/" + sentFrom + "/ecs/aws4_request"
	}
	sum := sha256.Sum256(body)
	t := append(s.text[:0], "POST\n/\n\ncontent-type:"+sentType+"\nhost:"...)
	t = append(t, s.host...)
	t = append(t, "\nx-amz-date:"...)
	t = append(t, s.date...)
	t = append(t, "\nx-amz-target:"...)
	t = append(t, s.target...)
	t = append(t, "\n\n"+sentHeaders+"\n"...)
	t = hex.AppendEncode(t, sum[:])
	sum = sha256.Sum256(t)
	t = append(t[:0], "AWS4-HMAC-SHA256\n"...)
	t = append(t, s.date...)
	t = append(t, '\n')
	t = append(t, s.scope...)
	t = append(t, '\n')
	t = hex.AppendEncode(t, sum[:])
	s.text = t
	s.signing.Reset()
	s.signing.Write(t)
	signature := s.signing.Sum(sum[:0])

	l := append(s.line[:0], "POST / HTTP/1.1\r\nHost: "...)
	l = append(l, s.host...)
	l = append(l, "\r\nAccept-Encoding: identity\r\nX-Amz-Target: "...)
	l = append(l, s.target...)
	l = append(l, "\r\nContent-Type: "+sentType+"\r\nUser-Agent: "+sentAgent+"\r\nX-Amz-Date: "...)
	l = append(l, s.date...)
	l = append(l, "\r\nAuthorization: AWS4-HMAC-SHA256 Credential="+sentAs+"/"...)
	l = append(l, s.scope...)
	l = append(l, ", SignedHeaders="+sentHeaders+", Signature="...)
	l = hex.AppendEncode(l, signature)
	l = append(l, "\r\namz-sdk-invocation-id: 1d31d1bb-7fa5-4ddb-a84f-3ed14a2b9e5c\r\namz-sdk-request: attempt=1\r\nContent-Length: "...)
	l = strconv.AppendInt(l, int64(len(body)), 10)
	l = append(l, "\r\n\r\n"...)
	s.line = append(l, body...)
}

// answer reads one. Its body is valid until the next.
func (s *sender) answer() (status int, body []byte, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case first:
			if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
				return 0, nil, fmt.Errorf("answer begins with %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, nil, fmt.Errorf("answer begins with %q", line)
			}
		case len(line) > 0:
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length, err = strconv.Atoi(string(value)); err != nil {
					return 0, nil, fmt.Errorf("answer with Content-Length %q", value)
				}
			}
		case length < 0:
			return 0, nil, errors.New("answer without Content-Length")
		default:
			if body, err = s.r.Peek(length); errors.Is(err, bufio.ErrBufferFull) {
				return 0, nil, fmt.Errorf("answer of %d bytes", length)
			}
			if err == nil {
				_, err = s.r.Discard(length)
			}
			return status, body, err
		}
	}
}
