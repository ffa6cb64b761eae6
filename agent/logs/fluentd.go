package logs

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fluentd sends lines by the Forward protocol (github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1), in message mode, as
// Docker's driver does: a map of container_id, container_name, source, log and the attributes.
type fluentd struct {
	o     options
	dial  Dial
	c     Config
	conn  net.Conn // nil: there is none
	buf   []byte
	attrs []string // keys, sorted
	chunk uint64
}

const (
	fluentdPort  = "24224"
	maxRetryWait = time.Minute
	ackTimeout   = 30 * time.Second
	dialTimeout  = 10 * time.Second
)

// fluentd reads the driver's options.
func (o *options) fluentd(opt map[string]string) error {
	network, address := "tcp", opt["fluentd-address"]
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		network, address = scheme, rest
	}
	switch network {
	case "unix":
	case "tcp", "tls":
		if address == "" {
			address = "127.0.0.1"
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), fluentdPort)
		}
	default:
		return fmt.Errorf("log option fluentd-address: unsupported scheme %q", network)
	}
	o.network, o.address = network, address
	o.async, o.subsecond, o.ack = opt["fluentd-async"] == "true", opt["fluentd-sub-second-precision"] == "true", opt["fluentd-request-ack"] == "true"
	o.retryWait, o.retries = time.Second, math.MaxInt32
	for name, d := range map[string]*time.Duration{"fluentd-retry-wait": &o.retryWait, "fluentd-write-timeout": &o.writeLimit} {
		if text := opt[name]; text != "" {
			var err error
			if *d, err = time.ParseDuration(text); err != nil {
				return fmt.Errorf("log option %s: %w", name, err)
			}
		}
	}
	if text := opt["fluentd-max-retries"]; text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("log option fluentd-max-retries: %w", err)
		}
		o.retries = int(n)
	}
	if n := Size(opt["fluentd-buffer-limit"]); n > 0 && opt["max-buffer-size"] == "" {
		o.buffer = n
	}
	return nil
}

// newFluentd connects, unless the option is to do that later.
func newFluentd(ctx context.Context, c Config, o options, dial Dial) (*fluentd, error) {
	f := &fluentd{o: o, dial: dial, c: c, attrs: slices.Sorted(maps.Keys(c.Attrs))}
	if o.async {
		return f, nil
	}
	return f, f.connect(ctx)
}

func (f *fluentd) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network := f.o.network
	if network == "tls" {
		network = "tcp"
	}
	conn, err := f.dial(ctx, network, f.o.address)
	if err != nil {
		return err
	}
	if f.o.network == "tls" {
		host, _, _ := net.SplitHostPort(f.o.address)
		secure := tls.Client(conn, &tls.Config{ServerName: host})
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return err
		}
		conn = secure
	}
	f.conn = conn
	return nil
}

// send writes the line, and with fluentd-request-ack waits for its acknowledgement, on connection after connection.
func (f *fluentd) send(ctx context.Context, l line) error {
	f.chunk++
	id := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 0, 8), f.chunk))
	f.buf = f.message(f.buf[:0], l, id)
	wait := f.o.retryWait
	for try := 0; ; try++ {
		var err error
		if f.conn == nil {
			err = f.connect(ctx)
		}
		if err == nil {
			err = f.exchange(ctx, id)
		}
		if err == nil {
			return nil
		}
		f.close()
		if ctx.Err() != nil {
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
		if try >= f.o.retries {
			return fmt.Errorf("failed to send after %d retries: %w", f.o.retries, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
		wait = min(wait*3/2, max(maxRetryWait, f.o.retryWait))
	}
}

// exchange is one message on the connection. The end of ctx breaks it off.
func (f *fluentd) exchange(ctx context.Context, id string) error {
	conn := f.conn // the end of ctx may be told when there is another, or none
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if f.o.writeLimit > 0 {
		f.conn.SetWriteDeadline(time.Now().Add(f.o.writeLimit))
	}
	if _, err := f.conn.Write(f.buf); err != nil {
		return err
	}
	if !f.o.ack {
		return nil
	}
	want := appendString(appendString([]byte{0x81}, "ack"), id)
	got := make([]byte, len(want))
	f.conn.SetReadDeadline(time.Now().Add(ackTimeout))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for n := 0; n < len(got); {
		k, err := f.conn.Read(got[n:])
		if err != nil {
			return fmt.Errorf("no acknowledgement: %w", err)
		}
		n += k
	}
	if string(got) != string(want) {
		return fmt.Errorf("the answer is no acknowledgement of the message: % x", got)
	}
	return nil
}

func (f *fluentd) close() {
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
}

// message is [tag, time, record] or, to be acknowledged, [tag, time, record, {chunk}].
func (f *fluentd) message(b []byte, l line, id string) []byte {
	elements, fields := byte(3), 4+len(f.attrs)
	if f.o.ack {
		elements++
	}
	if l.part != nil {
		fields += 4
	}
	b = appendString(append(b, 0x90|elements), f.c.Tag)
	if f.o.subsecond { // EventTime
		b = binary.BigEndian.AppendUint32(append(b, 0xd7, 0), uint32(l.at.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(l.at.Nanosecond()))
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(l.at.Unix()))
	}
	if fields < 16 {
		b = append(b, 0x80|byte(fields))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0xde), uint16(fields))
	}
	field := func(k, v string) { b = appendString(appendString(b, k), v) }
	field("container_id", f.c.ID)
	field("container_name", f.c.Name)
	field("source", map[bool]string{false: "stdout", true: "stderr"}[l.stderr])
	field("log", string(l.text))
	for _, k := range f.attrs {
		field(k, f.c.Attrs[k])
	}
	if l.part != nil {
		field("partial_message", "true")
		field("partial_id", l.part.id)
		field("partial_ordinal", strconv.Itoa(l.part.ordinal))
		field("partial_last", strconv.FormatBool(!l.goesOn))
	}
	if f.o.ack {
		b = appendString(appendString(append(b, 0x81), "chunk"), id)
	}
	return b
}

// appendString is MessagePack's str.
func appendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}
