package logs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gelfMessage reads a message, and holds what is the same in all against what it has to be.
func gelfMessage(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	at, _ := m["timestamp"].(float64)
	if age := time.Since(time.UnixMilli(int64(at * 1000))); age < -time.Second || age > time.Minute {
		t.Errorf("the time is %v", m["timestamp"])
	}
	host, _ := os.Hostname()
	if m["host"] != host || m["version"] != "1.1" {
		t.Errorf("message %v", m)
	}
	for _, known := range []string{"timestamp", "host", "version"} {
		delete(m, known)
	}
	return m
}

// TestGelfMessages reads what comes by datagrams, compressed each way and in chunks.
func TestGelfMessages(t *testing.T) {
	var long strings.Builder // that cannot be made small
	for r := rand.New(rand.NewPCG(1, 2)); long.Len() < 12000; {
		long.WriteByte(byte('0' + r.IntN(64)))
	}
	for compression, open := range map[string]func(io.Reader) (io.Reader, error){
		"":     func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zlib": func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		"none": func(r io.Reader) (io.Reader, error) { return r, nil },
	} {
		l, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := config(t, DriverGELF, "mode=blocking", "gelf-address=udp://"+l.LocalAddr().String())
		if compression != "" {
			c.Options["gelf-compression-type"] = compression
		}
		c.Attrs, c.Image = map[string]string{"team": "a", "_own": "b"}, Image{ID: "sha256:1", Name: "web:1", Command: "serve -v", Created: time.Unix(9, 0).UTC()}
		o, err := Start(c, dialer)
		if err != nil {
			t.Fatal(err)
		}
		read := func() map[string]any {
			t.Helper()
			chunks := map[byte][]byte{}
			l.SetReadDeadline(time.Now().Add(30 * time.Second))
			for {
				b := make([]byte, 2000)
				n, _, err := l.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				b = b[:n]
				if n > gelfDatagram {
					t.Errorf("a datagram of %d bytes", n)
				}
				if !bytes.HasPrefix(b, []byte{0x1e, 0x0f}) {
					chunks[0] = b
					break
				}
				if chunks[b[10]] = b[gelfHeader:]; len(chunks) == int(b[11]) {
					break
				}
			}
			var all []byte
			for i := range len(chunks) {
				all = append(all, chunks[byte(i)]...)
			}
			r, err := open(bytes.NewReader(all))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return gelfMessage(t, text)
		}
		o.Copy(strings.NewReader("\nout \"<x>\"\n"), false) // an empty line is none
		want := map[string]any{"short_message": `out "<x>"`, "level": 6.0, "_container_id": c.ID, "_container_name": strings.TrimPrefix(c.Name, "/"), "_image_id": "sha256:1",
			"_image_name": "web:1", "_command": "serve -v", "_tag": c.Tag, "_created": "1970-01-01T00:00:09Z", "_team": "a", "_own": "b"}
		if diff := cmp.Diff(want, read()); diff != "" {
			t.Errorf("%q: %s", compression, diff)
		}
		o.Copy(strings.NewReader(long.String()+"\n"), true)
		if m := read(); m["short_message"] != long.String() || m["level"] != 3.0 {
			t.Errorf("%q: the long line came as %.100v of level %v", compression, m["short_message"], m["level"])
		}
		o.Close()
		l.Close()
	}
}

// TestGelfConnections: by TCP messages end with a zero byte, and a connection that is lost is made again.
func TestGelfConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o, err := Start(config(t, DriverGELF, "mode=blocking", "gelf-tcp-reconnect-delay=0", "gelf-address=tcp://"+l.Addr().String()), dialer)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for range 2 {
		o.Copy(strings.NewReader("out\n"), false)
		text, err := in.ReadBytes(0)
		if err != nil {
			t.Fatal(err)
		}
		if m := gelfMessage(t, text[:len(text)-1]); m["short_message"] != "out" {
			t.Errorf("message %v", m)
		}
	}
	conn.Close()
	next := make(chan net.Conn)
	go func() { c, _ := l.Accept(); next <- c }()
	var again net.Conn
	for again == nil { // until the kernel has told that the connection is gone
		o.Copy(strings.NewReader("out\n"), false)
		select {
		case again = <-next:
		case <-time.After(time.Millisecond):
		}
	}
	defer again.Close()
	if text, err := bufio.NewReader(again).ReadBytes(0); err != nil || gelfMessage(t, text[:len(text)-1])["short_message"] != "out" {
		t.Errorf("by the second connection came %q, %v", text, err)
	}
	if _, err := Start(config(t, DriverGELF, "gelf-address=tcp://127.0.0.1:1"), dialer); err == nil || !strings.Contains(err.Error(), "failed to initialize logging driver") {
		t.Errorf("without anybody there: %v", err)
	}
}
