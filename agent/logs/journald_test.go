package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// journal is a host's journal at a socket of the test's.
func journal(t *testing.T, path string) (*net.UnixConn, Dial) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != JournalSocket {
			t.Errorf("it sends to %s", address)
		}
		return dialer(ctx, network, path)
	}
}

// entry reads a message as the journal does.
func entry(t *testing.T, l *net.UnixConn) map[string]string {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for b = b[:n]; len(b) > 0; {
		name, rest, _ := bytes.Cut(b, []byte("\n"))
		if k, v, ok := strings.Cut(string(name), "="); ok {
			fields[k], b = v, rest
			continue
		}
		size := binary.LittleEndian.Uint64(rest)
		fields[string(name)], b = string(rest[8:8+size]), rest[8+size+1:]
	}
	return fields
}

// TestJournaldMessages: the fields are those of Docker's driver.
func TestJournaldMessages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.sock")
	l, dial := journal(t, path)
	c := config(t, DriverJournald, "mode=blocking")
	c.ID, c.Image, c.Attrs = "0123456789abcdef", Image{Name: "web:1"}, map[string]string{"com.team/name": "a\nb", "_x": "y", "__": "no", "container_tag": "own"}
	o, err := Start(c, dial)
	if err != nil {
		t.Fatal(err)
	}
	o.Copy(strings.NewReader("first\n"+strings.Repeat("x", MaxLine+10)+"\n"), true)
	o.Copy(strings.NewReader("third\n"), false)
	first, one, two, third := entry(t, l), entry(t, l), entry(t, l), entry(t, l)
	at, err := time.Parse(time.RFC3339Nano, first["SYSLOG_TIMESTAMP"])
	if err != nil || time.Since(at) > time.Minute || len(first["CONTAINER_LOG_EPOCH"]) != 64 || first["CONTAINER_LOG_EPOCH"] != third["CONTAINER_LOG_EPOCH"] {
		t.Errorf("time and epoch: %v", first)
	}
	for k, want := range map[string]string{"PRIORITY": "3", "MESSAGE": "first", "CONTAINER_ID": "0123456789ab", "CONTAINER_ID_FULL": c.ID, "CONTAINER_NAME": "name", "CONTAINER_TAG": "own",
		"SYSLOG_IDENTIFIER": "tag.x", "IMAGE_NAME": "web:1", "CONTAINER_LOG_ORDINAL": "1", "COM_TEAM_NAME": "a\nb", "X": "y"} {
		if first[k] != want {
			t.Errorf("%s is %q, not %q", k, first[k], want)
		}
	}
	if len(first) != 13 {
		t.Errorf("%d fields: %v", len(first), first)
	}
	if len(one["MESSAGE"]) != MaxLine || one["CONTAINER_PARTIAL_MESSAGE"] != "true" || one["CONTAINER_PARTIAL_ORDINAL"] != "1" || one["CONTAINER_PARTIAL_LAST"] != "false" ||
		len(two["MESSAGE"]) != 10 || two["CONTAINER_PARTIAL_MESSAGE"] != "" || two["CONTAINER_PARTIAL_LAST"] != "true" || one["CONTAINER_PARTIAL_ID"] != two["CONTAINER_PARTIAL_ID"] {
		t.Errorf("parts %.300v, %.300v", one, two)
	}
	if third["PRIORITY"] != "6" || third["MESSAGE"] != "third" || third["CONTAINER_LOG_ORDINAL"] != "4" {
		t.Errorf("%v", third)
	}

	// The journal is restarted: its socket is another one.
	l.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := make(chan struct{})
	go func() {
		defer close(again)
		o.Copy(strings.NewReader("after\n"), false)
	}()
	l, _ = journal(t, path)
	if e := entry(t, l); e["MESSAGE"] != "after" {
		t.Errorf("%v", e)
	}
	<-again
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := Start(config(t, DriverJournald), dial); err == nil || !strings.HasPrefix(err.Error(), "failed to initialize logging driver: journald is not enabled on this host") {
		t.Errorf("without a journal: %v", err)
	}
}
