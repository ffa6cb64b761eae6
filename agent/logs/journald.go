package logs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// JournalSocket is where the journal of a host takes messages.
const JournalSocket = "/run/systemd/journal/socket"

// HasJournal says whether this host has one.
func HasJournal() bool {
	info, err := os.Stat(JournalSocket)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

// journald sends lines to the host's journal as Docker's driver does: priority err for stderr, info for stdout, and the fields that journalctl finds
// a container's by. A message is a datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL). What cannot be sent is tried again on new sockets, for a journal is
// restarted now and then.
type journald struct {
	dial    Dial
	conn    net.Conn // nil: there is none
	fields  []byte   // what is the same in all messages
	ordinal uint64
	buf     []byte
}

const (
	journalTries = 3
	journalWait  = time.Second // between them
)

func newJournald(ctx context.Context, c Config, dial Dial) (*journald, error) {
	epoch := make([]byte, 32)
	rand.Read(epoch) // never fails
	j := &journald{dial: dial}
	fields := map[string]string{
		"CONTAINER_ID": c.ID[:min(12, len(c.ID))], "CONTAINER_ID_FULL": c.ID, "CONTAINER_NAME": strings.TrimPrefix(c.Name, "/"), "CONTAINER_TAG": c.Tag,
		"IMAGE_NAME": c.Image.Name, "SYSLOG_IDENTIFIER": c.Tag, "CONTAINER_LOG_EPOCH": fmt.Sprintf("%x", epoch),
	}
	for k, v := range c.Attrs {
		if name := journalName(k); name != "" {
			fields[name] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		j.fields = appendField(j.fields, name, fields[name])
	}
	if err := j.connect(ctx); err != nil {
		return nil, fmt.Errorf("journald is not enabled on this host: %w", err)
	}
	return j, nil
}

func (j *journald) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	j.conn, err = j.dial(ctx, "unixgram", JournalSocket)
	return err
}

func (j *journald) close() {
	if j.conn != nil {
		j.conn.Close()
		j.conn = nil
	}
}

func (j *journald) send(ctx context.Context, l line) error {
	j.message(l)
	for try := 1; ; try++ {
		var err error
		if j.conn == nil {
			err = j.connect(ctx)
		}
		if err == nil {
			err = j.write(ctx)
		}
		if err == nil {
			return nil
		}
		j.close()
		if ctx.Err() != nil {
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
		if try == journalTries {
			return err
		}
		select {
		case <-time.After(journalWait):
		case <-ctx.Done():
			return fmt.Errorf("the container has ended; the last error: %w", err)
		}
	}
}

func (j *journald) write(ctx context.Context) error {
	conn := j.conn // the end of ctx may be told when there is another, or none
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := j.conn.Write(j.buf)
	return err
}

func (j *journald) message(l line) {
	j.ordinal++
	priority := severityInfo
	if l.stderr {
		priority = severityErr
	}
	b := appendField(j.buf[:0], "PRIORITY", strconv.Itoa(priority))
	b = appendField(b, "MESSAGE", string(l.text))
	b = appendField(b, "SYSLOG_TIMESTAMP", l.at.UTC().Format(time.RFC3339Nano))
	b = appendField(b, "CONTAINER_LOG_ORDINAL", strconv.FormatUint(j.ordinal, 10))
	if l.part != nil {
		b = appendField(b, "CONTAINER_PARTIAL_ID", l.part.id)
		b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.Itoa(l.part.ordinal))
		b = appendField(b, "CONTAINER_PARTIAL_LAST", strconv.FormatBool(!l.goesOn))
		if l.goesOn {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", "true")
		}
	}
	j.buf = append(b, j.fields...)
}

// appendField is NAME=value, or with its length where the value is of several lines.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if strings.Contains(value, "\n") {
		b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	} else {
		b = append(b, '=')
	}
	return append(append(b, value...), '\n')
}

// journalName is the name of a label or a variable as the journal takes it: capitals, digits and underscores, none of these first.
func journalName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(name, "_")
}
