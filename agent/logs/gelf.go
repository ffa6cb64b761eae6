package logs

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// gelf sends lines as Docker's driver does, as messages of the Graylog Extended Log Format 1.1: by TCP each with a zero byte behind it, by UDP
// compressed, and in chunks where it is too large for one datagram. An empty line is none. What cannot be written by TCP is tried again on
// new connections; what is written by UDP is gone.
type gelf struct {
	o     options
	dial  Dial
	extra map[string]any // what is the same in all messages
	conn  net.Conn
	buf   bytes.Buffer
}

// gelfOptions are its own.
type gelfOptions struct {
	compression string // gzip, zlib or none; of UDP
	level       int
}

// Of a datagram, and of the header that a chunk of a larger message has: two bytes of magic, eight of the message's id, its number, and how many
// there are.
const (
	gelfDatagram  = 1420
	gelfHeader    = 12
	gelfMaxChunks = 128
)

func (o *options) gelfOf(opt map[string]string) (err error) {
	scheme, address, ok := strings.Cut(opt["gelf-address"], "://")
	if _, _, split := net.SplitHostPort(address); !ok || split != nil || scheme != "tcp" && scheme != "udp" {
		return fmt.Errorf("gelf-address should be in form proto://host:port, got %s", opt["gelf-address"])
	}
	o.network, o.address = scheme, address
	o.gelf = gelfOptions{compression: "gzip", level: flate.BestSpeed}
	if c := opt["gelf-compression-type"]; c != "" {
		o.gelf.compression = c
	}
	o.retries, o.retryWait = 3, time.Second
	for name, to := range map[string]*int{"gelf-compression-level": &o.gelf.level, "gelf-tcp-max-reconnect": &o.retries} {
		if text := opt[name]; text != "" {
			if *to, err = strconv.Atoi(text); err != nil {
				return fmt.Errorf("log option %s: %w", name, err)
			}
		}
	}
	if text := opt["gelf-tcp-reconnect-delay"]; text != "" { // of seconds
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("log option gelf-tcp-reconnect-delay: %w", err)
		}
		o.retryWait = time.Duration(n) * time.Second
	}
	return nil
}

func newGelf(ctx context.Context, c Config, o options, dial Dial) (*gelf, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	g := &gelf{o: o, dial: dial, extra: map[string]any{
		"version": "1.1", "host": host, "_container_id": c.ID, "_container_name": strings.TrimPrefix(c.Name, "/"), "_image_id": c.Image.ID, "_image_name": c.Image.Name,
		"_command": c.Image.Command, "_tag": c.Tag, "_created": c.Image.Created,
	}}
	for k, v := range c.Attrs {
		if !strings.HasPrefix(k, "_") {
			k = "_" + k
		}
		g.extra[k] = v
	}
	return g, g.connect(ctx)
}

func (g *gelf) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	g.conn, err = g.dial(ctx, g.o.network, g.o.address)
	return err
}

func (g *gelf) send(ctx context.Context, l line) error {
	if len(l.text) == 0 {
		return nil
	}
	packets, err := g.packets(l)
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		var err error
		if g.conn == nil {
			err = g.connect(ctx)
		}
		if err == nil {
			err = g.write(ctx, packets)
		}
		if err == nil {
			return nil
		}
		g.close()
		if ctx.Err() != nil {
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
		if try >= g.o.retries || g.o.network == "udp" {
			return err
		}
		select {
		case <-time.After(g.o.retryWait):
		case <-ctx.Done():
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
	}
}

func (g *gelf) write(ctx context.Context, packets [][]byte) error {
	conn := g.conn // the end of ctx may be told when there is another, or none
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for _, p := range packets {
		if _, err := g.conn.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (g *gelf) close() {
	if g.conn != nil {
		g.conn.Close()
		g.conn = nil
	}
}

// packets are the message as it goes over the wire, valid until the next.
func (g *gelf) packets(l line) ([][]byte, error) {
	level := severityInfo
	if l.stderr {
		level = severityErr
	}
	g.extra["short_message"], g.extra["level"] = string(l.text), level
	g.extra["timestamp"] = json.Number(fmt.Sprintf("%d.%03d", l.at.Unix(), l.at.Nanosecond()/1e6))
	text, err := json.Marshal(g.extra)
	if err != nil {
		return nil, err
	}
	if g.o.network == "tcp" {
		return [][]byte{append(text, 0)}, nil
	}
	if text, err = g.compress(text); err != nil {
		return nil, err
	}
	return gelfChunks(text)
}

func (g *gelf) compress(text []byte) ([]byte, error) {
	g.buf.Reset()
	var w io.WriteCloser
	var err error
	switch g.o.gelf.compression {
	case "none":
		return text, nil
	case "zlib":
		w, err = zlib.NewWriterLevel(&g.buf, g.o.gelf.level)
	default:
		w, err = gzip.NewWriterLevel(&g.buf, g.o.gelf.level)
	}
	if err != nil {
		return nil, err
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return g.buf.Bytes(), nil
}

// gelfChunks cuts what does not fit a datagram.
func gelfChunks(message []byte) (packets [][]byte, err error) {
	if len(message) <= gelfDatagram {
		return [][]byte{message}, nil
	}
	const room = gelfDatagram - gelfHeader
	count := (len(message) + room - 1) / room
	if count > gelfMaxChunks {
		return nil, errors.New("the message is too large for GELF over UDP")
	}
	id := make([]byte, 8)
	rand.Read(id)
	for i := range count {
		part := message[i*room : min((i+1)*room, len(message))]
		packets = append(packets, append(append([]byte{0x1e, 0x0f}, append(id[:8:8], byte(i), byte(count))...), part...))
	}
	return packets, nil
}
