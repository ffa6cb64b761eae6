package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

func dialer(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// kept are the texts of a log on this host.
func kept(t *testing.T, path string) (lines []string) {
	t.Helper()
	r, err := Read(t.Context(), path, runtime.LogOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l.Text)
	}
}

// unpack reads one value of MessagePack, of the kinds that the Forward protocol's messages have.
func unpack(r *bufio.Reader) (any, error) {
	c, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	number := func(n int) uint64 {
		b := make([]byte, 8)
		if _, e := io.ReadFull(r, b[8-n:]); e != nil {
			err = e
		}
		return binary.BigEndian.Uint64(b)
	}
	text := func(n uint64) (any, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return string(b), err
	}
	list := func(n uint64) (any, error) {
		var l []any
		for range n {
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		return l, nil
	}
	dict := func(n uint64) (any, error) {
		l, err := list(2 * n)
		if err != nil {
			return nil, err
		}
		m := map[string]string{}
		for pair := range slices.Chunk(l.([]any), 2) {
			m[pair[0].(string)] = pair[1].(string)
		}
		return m, nil
	}
	switch {
	case c>>5 == 5:
		return text(uint64(c & 31))
	case c == 0xd9:
		return text(number(1))
	case c == 0xda:
		return text(number(2))
	case c>>4 == 9:
		return list(uint64(c & 15))
	case c>>4 == 8:
		return dict(uint64(c & 15))
	case c == 0xde:
		return dict(number(2))
	case c == 0xd3:
		return int64(number(8)), err
	case c == 0xd7:
		if kind := number(1); kind != 0 {
			return nil, fmt.Errorf("extension %d", kind)
		}
		return time.Unix(int64(number(4)), int64(number(4))), err
	}
	return nil, fmt.Errorf("byte %#x", c)
}

// forwarded is a message as it has come.
type forwarded struct {
	Tag    string
	Time   any
	Record map[string]string
	Option map[string]string
}

// receive hands out the messages of each connection, one at a time, and acknowledges those that ask for it.
func receive(t *testing.T, network, address string) (at string, messages chan forwarded, stop func()) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	messages = make(chan forwarded)
	ended := make(chan struct{})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				go func() { <-ended; conn.Close() }()
				for r := bufio.NewReader(conn); ; {
					v, err := unpack(r)
					if err != nil {
						return
					}
					m := v.([]any)
					f := forwarded{Tag: m[0].(string), Time: m[1], Record: m[2].(map[string]string)}
					if len(m) > 3 {
						f.Option = m[3].(map[string]string)
					}
					select {
					case messages <- f:
					case <-ended:
						return
					}
					if id := f.Option["chunk"]; id != "" {
						conn.Write(appendString(appendString([]byte{0x81}, "ack"), id))
					}
				}
			}()
		}
	}()
	stop = func() {
		l.Close()
		select {
		case <-ended:
		default:
			close(ended)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), messages, stop
}

func config(t *testing.T, driver string, options ...string) Config {
	c := Config{Driver: driver, Options: map[string]string{}, Path: filepath.Join(t.TempDir(), "c.log"), Tag: "tag.x", ID: "id", Name: "/name"}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		c.Options[k] = v
	}
	return c
}

func TestFluentdMessages(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "f.sock")
	for _, test := range []struct{ network, address, scheme string }{{"tcp", "127.0.0.1:0", ""}, {"tcp", "127.0.0.1:0", "tcp://"}, {"unix", socket, "unix://"}} {
		for _, ack := range []string{"false", "true"} {
			at, messages, stop := receive(t, test.network, test.address)
			c := config(t, DriverFluentd, "mode=blocking", "fluentd-address="+test.scheme+at, "fluentd-request-ack="+ack, "fluentd-sub-second-precision="+ack)
			for i := range 12 { // a map of more than 15
				if c.Attrs == nil {
					c.Attrs = map[string]string{}
				}
				c.Attrs[fmt.Sprint("attr", i)] = strings.Repeat("v", 20*i)
			}
			o, err := Start(c, dialer)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				o.Copy(strings.NewReader("first\n"+strings.Repeat("x", MaxLine+10)+"\nlast"), true)
				close(done)
			}()
			var got []forwarded
			for range 4 {
				got = append(got, <-messages)
			}
			<-done
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			stop()
			f := got[0]
			if f.Tag != "tag.x" || f.Record["container_id"] != "id" || f.Record["container_name"] != "/name" || f.Record["source"] != "stderr" ||
				f.Record["log"] != "first" || f.Record["attr11"] != c.Attrs["attr11"] || len(f.Record) != 16 {
				t.Errorf("%s, ack %s: %+v", test.scheme, ack, f)
			}
			if at, exact := f.Time.(time.Time); exact != (ack == "true") || exact && time.Since(at) > time.Minute {
				t.Errorf("time %v", f.Time)
			}
			one, two := got[1].Record, got[2].Record
			if one["partial_id"] == "" || one["partial_id"] != two["partial_id"] || one["partial_ordinal"] != "1" || two["partial_ordinal"] != "2" ||
				one["partial_last"] != "false" || two["partial_last"] != "true" || len(one["log"]) != MaxLine || len(two["log"]) != 10 || two["partial_message"] != "true" {
				t.Errorf("parts %.200v, %.200v", one, two)
			}
			if f := got[3].Record; f["log"] != "last" || f["partial_id"] != "" {
				t.Errorf("%v", f)
			}
			if lines := kept(t, c.Path); len(lines) != 4 || lines[0] != "first" || lines[3] != "last" {
				t.Errorf("%d lines are kept here", len(lines))
			}
		}
	}
}

// TestFluentdIsThereFirst: without fluentd-async a container does not start unless somebody takes its output.
func TestFluentdIsThereFirst(t *testing.T) {
	at := filepath.Join(t.TempDir(), "f.sock") // which nobody else takes meanwhile
	c := config(t, DriverFluentd, "fluentd-address=unix://"+at)
	if _, err := Start(c, dialer); err == nil || !strings.HasPrefix(err.Error(), "failed to initialize logging driver: dial unix "+at) {
		t.Errorf("%v", err)
	}
	c.Options["fluentd-async"], c.Options["fluentd-retry-wait"] = "true", "1ms"
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	o.Copy(strings.NewReader("early\n"), false)
	_, messages, _ := receive(t, "unix", at)
	if f := <-messages; f.Record["log"] != "early" {
		t.Errorf("%v", f)
	}
	o.Close()
}

// TestBlockingHoldsUpWhoWrites, while nobody takes what is written, and no longer; the end is not held up.
func TestBlockingHoldsUpWhoWrites(t *testing.T) {
	for name, ack := range map[string]string{"what is not read": "false", "what is not acknowledged": "true"} {
		at, messages, stop := receive(t, "tcp", "127.0.0.1:0")
		c := config(t, DriverFluentd, "mode=blocking", "fluentd-address="+at, "fluentd-request-ack="+ack, "fluentd-retry-wait=1ms")
		o, err := Start(c, dialer)
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		copied := make(chan struct{})
		go func() { o.Copy(r, false); close(copied) }()
		text := strings.Repeat("x", 1000) + "\n"
		fill := func(patience time.Duration) { // until sockets and pipe are full
			t.Helper()
			for written := 0; ; {
				w.SetWriteDeadline(time.Now().Add(patience))
				n, err := io.WriteString(w, text)
				if written += n; err != nil {
					return
				}
				if written > 64<<20 {
					t.Fatalf("%s: nobody is held up", name)
				}
			}
		}
		fill(500 * time.Millisecond)
		taken, enough := make(chan struct{}), make(chan struct{})
		go func() { // it goes on as soon as it is taken
			defer close(taken)
			for {
				select {
				case <-messages:
				case <-enough:
					return
				}
			}
		}()
		w.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(w, "\n"+text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		close(enough)
		<-taken
		fill(5 * time.Second) // they are, or nothing would be lost
		began := time.Now()
		o.Ended()
		o.GiveUp()
		w.Close()
		<-copied
		if err := o.Close(); err != nil || time.Since(began) > time.Minute {
			t.Errorf("%s: the end took %v, %v", name, time.Since(began), err)
		}
		stop()
		if lines := kept(t, c.Path); !strings.HasPrefix(lines[len(lines)-1], "neargate: log driver fluentd lost ") {
			t.Errorf("%s: the last line is %.100q", name, lines[len(lines)-1])
		}
	}
}

// TestNothingIsLostWithAcknowledgements, although the other side breaks connections off.
func TestNothingIsLostWithAcknowledgements(t *testing.T) {
	at, messages, stop := receive(t, "unix", filepath.Join(t.TempDir(), "f.sock"))
	o, err := Start(config(t, DriverFluentd, "mode=blocking", "fluentd-address=unix://"+at, "fluentd-request-ack=true", "fluentd-retry-wait=1ms"), dialer)
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		for i := range 100 {
			o.Copy(strings.NewReader(fmt.Sprintf("line %d\n", i)), false)
		}
	}()
	var got []string
	for len(got) < 100 {
		f := <-messages
		if n := len(got); n == 0 || got[n-1] != f.Record["log"] { // what was not acknowledged comes again
			got = append(got, f.Record["log"])
		}
		if len(got)%20 == 10 {
			stop()
			_, messages, stop = receive(t, "unix", at)
		}
	}
	for i, text := range got {
		if text != fmt.Sprint("line ", i) {
			t.Fatalf("line %d is %q", i, text)
		}
	}
	<-copied
	o.Close()
}

// TestNonBlockingDropsAndSaysSo: who writes is never held up, what waits is bounded, and what is lost is counted.
func TestNonBlockingDropsAndSaysSo(t *testing.T) {
	at, messages, _ := receive(t, "tcp", "127.0.0.1:0")
	c := config(t, DriverFluentd, "mode=non-blocking", "max-buffer-size=64k", "fluentd-address="+at)
	c.Limit = 1 << 30
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 20000
	text := strings.Repeat("x", 1000)
	o.Copy(strings.NewReader(strings.Repeat(text+"\n", lines)), false)
	o.queue.mu.Lock()
	waiting := o.queue.bytes
	o.queue.mu.Unlock()
	if waiting > 64<<10 {
		t.Errorf("%d bytes wait", waiting)
	}
	if o.lost.Load() == 0 {
		t.Fatal("nothing was lost")
	}
	took := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-messages:
				n++
			case took <- n:
				return
			}
			if n+int(o.lost.Load()) == lines {
				took <- n
				return
			}
		}
	}()
	n := <-took
	for n+int(o.lost.Load()) < lines {
		<-messages
		n++
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	said := 0
	for _, l := range kept(t, c.Path) {
		var k int
		if _, err := fmt.Sscanf(l, "neargate: log driver fluentd lost %d lines: the buffer was full", &k); err == nil {
			said += k
		}
	}
	if said != int(o.lost.Load()) || n+said != lines {
		t.Errorf("%d were lost, %d are said to be, %d came", o.lost.Load(), said, n)
	}
}

func TestSyslogMessages(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	for format, want := range map[string]string{
		"":             fmt.Sprintf("<134>TIME tag.x[%d]: out", pid),
		"rfc3164":      fmt.Sprintf("<134>TIME %s tag.x[%d]: out", host, pid),
		"rfc5424":      fmt.Sprintf("<134>1 TIME %s tag.x %d tag.x - out", host, pid),
		"rfc5424micro": fmt.Sprintf("<134>1 TIME %s tag.x %d tag.x - out", host, pid),
	} {
		layout := map[string]string{"": time.Stamp, "rfc3164": time.Stamp, "rfc5424": time.RFC3339, "rfc5424micro": "2006-01-02T15:04:05.000000Z07:00"}[format]
		check := func(got string) {
			t.Helper()
			head, rest, _ := strings.Cut(want, "TIME")
			text, begins := strings.CutPrefix(got, head)
			length := len(layout)
			if layout != time.Stamp {
				length = strings.IndexByte(text, ' ')
			}
			if !begins || len(text) < length {
				t.Fatalf("%s: %q", format, got)
			}
			if _, err := time.Parse(layout, text[:length]); err != nil || text[length:] != rest {
				t.Errorf("%s: %q, want %q: %v", format, got, want, err)
			}
		}
		options := []string{"mode=blocking", "syslog-facility=local0"}
		if format != "" {
			options = append(options, "syslog-format="+format)
		}
		// By datagrams, each a message.
		socket := filepath.Join(t.TempDir(), "log")
		for _, network := range []string{"udp", "unixgram"} {
			address := map[string]string{"udp": "127.0.0.1:0", "unixgram": socket}[network]
			l, err := net.ListenPacket(network, address)
			if err != nil {
				t.Fatal(err)
			}
			o, err := Start(config(t, DriverSyslog, append(options, "syslog-address="+network+"://"+l.LocalAddr().String())...), dialer)
			if err != nil {
				t.Fatal(err)
			}
			o.Copy(strings.NewReader("out\n"), false)
			b := make([]byte, 1000)
			n, _, err := l.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			check(string(b[:n]))
			o.Close()
			l.Close()
		}
		// By a stream, with a connection that is lost in between.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o, err := Start(config(t, DriverSyslog, append(options, "syslog-address=tcp://"+l.Addr().String())...), dialer)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		for range 2 {
			o.Copy(strings.NewReader("out\n"), false)
			text, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			check(strings.TrimSuffix(text, "\n"))
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
		text, err := bufio.NewReader(again).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		check(strings.TrimSuffix(text, "\n"))
		o.Close()
		l.Close()
	}
}

// TestJSONFile: records are Docker's, in as many files as were asked for, and read back.
func TestJSONFile(t *testing.T) {
	c := config(t, DriverJSONFile, "max-size=1k", "max-file=3")
	c.Attrs = map[string]string{"team": "a"}
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	odd := "quote \" slash \\ tab \t bell \a bytes \xff\xfe, é €"
	o.Copy(strings.NewReader(odd+"\nunfinished"), true)
	b, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(b, []byte("\n"))
	var r struct {
		Log, Stream string
		Attrs       map[string]string
		Time        time.Time
	}
	if err := json.Unmarshal(first, &r); err != nil || r.Log != strings.ToValidUTF8(odd, "\ufffd\ufffd")+"\n" || r.Stream != "stderr" || r.Attrs["team"] != "a" || time.Since(r.Time) > time.Minute {
		t.Errorf("%s: %+v, %v", first, r, err)
	}
	follow := make(chan struct{})
	reader, err := Read(t.Context(), c.Path, runtime.LogOptions{Follow: true}, follow)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for range 2 {
		if _, err := reader.Next(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		o.Copy(strings.NewReader(fmt.Sprintf("line %d\n", i)), false)
		if l, err := reader.Next(); err != nil || l.Text != fmt.Sprint("line ", i) || l.Stderr || l.Partial {
			t.Fatalf("line %d: %+v, %v", i, l, err)
		}
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(c.Path + "*")
	if err != nil || len(files) != 3 {
		t.Errorf("files %v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 1024 {
			t.Errorf("%s has %d bytes, %v", f, st.Size(), err)
		}
	}
	lines := kept(t, c.Path)
	if n := len(lines); n < 20 || n > 40 || lines[n-1] != "line 99" || lines[0] != fmt.Sprint("line ", 100-n) {
		t.Errorf("%d lines from %s on", n, lines[0])
	}
}

// TestWhatIsShippedIsKept: in mode blocking no file goes before its lines are shipped, and who writes waits; otherwise they are counted.
func TestWhatIsShippedIsKept(t *testing.T) {
	c := config(t, DriverAWSLogs, "mode=blocking")
	c.Limit = 4000
	o, err := Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	copied := make(chan struct{})
	go func() { o.Copy(r, false); close(copied) }()
	const lines = 500
	go func() {
		for i := range lines {
			fmt.Fprintf(w, "line %d\n", i)
		}
		w.Close()
	}()
	reader, err := Read(t.Context(), c.Path, runtime.LogOptions{Follow: true}, copied)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for i := range lines {
		l, err := reader.Next()
		if err != nil || l.Text != fmt.Sprint("line ", i) {
			t.Fatalf("line %d: %+v, %v", i, l, err)
		}
		if st, err := os.Stat(c.Path); err == nil && st.Size() > 2000 { // between two files there is none
			t.Fatalf("the log has %d bytes", st.Size())
		}
		if err := Shipped(c.Path, l.At); err != nil {
			t.Fatal(err)
		}
	}
	<-copied
	o.Close()

	// The end of the container is not held up by what nobody ships; its last words are kept.
	o, err = Start(c, dialer)
	if err != nil {
		t.Fatal(err)
	}
	r, w = io.Pipe()
	copied = make(chan struct{})
	go func() { o.Copy(r, false); close(copied) }()
	go func() {
		for i := range lines {
			fmt.Fprintf(w, "more %d\n", i)
		}
		w.Close()
	}()
	await(t, "both files are full", func() bool {
		a, err1 := os.Stat(c.Path)
		b, err2 := os.Stat(c.Path + ".1")
		return err1 == nil && err2 == nil && a.Size()+b.Size() > 3800
	})
	select {
	case <-copied:
		t.Fatal("nobody is held up")
	default:
	}
	o.Ended()
	<-copied
	o.Close()
	if all := kept(t, c.Path); all[len(all)-1] != fmt.Sprint("more ", lines-1) {
		t.Errorf("the last line is %q", all[len(all)-1])
	}

	c = config(t, DriverAWSLogs, "max-buffer-size=2k")
	c.Limit = 4000
	if o, err = Start(c, dialer); err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		o.Copy(strings.NewReader(fmt.Sprintf("line %d\n", i)), false)
	}
	o.Close()
	if all := kept(t, c.Path); !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, "neargate: log driver awslogs may have lost ") }) {
		t.Errorf("%d lines are left, and no word of the others", len(all))
	}
}

func TestAttributes(t *testing.T) {
	got, err := Attributes(map[string]string{"labels": "team,none", "labels-regex": "^x", "env": "A", "env-regex": "^B"},
		map[string]string{"team": "a", "xy": "b", "other": "c"}, []string{"A=1", "B1=2", "C=3"})
	if err != nil || len(got) != 4 || got["team"] != "a" || got["xy"] != "b" || got["A"] != "1" || got["B1"] != "2" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestReaderBeginsWithTheOldest: also when the files are given their next names while it opens them.
func TestReaderBeginsWithTheOldest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(name string, n int) {
		if err := os.WriteFile(name, []byte(fmt.Sprintf(`{"log":"line %d\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`+"\n", n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		write(path, 0)
		turned := make(chan error, 1)
		go func() { turned <- errors.Join(os.Rename(path, older(path, 1)), os.WriteFile(path, nil, 0o600)) }()
		r, err := Read(t.Context(), path, runtime.LogOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := r.Next(); err != nil || l.Text != "line 0" {
			t.Fatalf("began with %+v, %v", l, err)
		}
		r.Close()
		if err := <-turned; err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(older(path, 1)); err != nil {
			t.Fatal(err)
		}
	}
}
