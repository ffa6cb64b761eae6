package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Logs reads from the engine, or, once the task is removed, from the copy.
func (d *Driver) Logs(ctx context.Context, taskID, name string, opt runtime.LogOptions) (runtime.LogReader, error) {
	o := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: opt.Follow}
	if opt.Tail > 0 {
		o.Tail = strconv.Itoa(opt.Tail)
	}
	if !opt.Since.IsZero() {
		o.Since = fmt.Sprintf("%d.%09d", opt.Since.Unix(), opt.Since.Nanosecond())
	}
	body, err := d.engineLogs(ctx, taskID, name, o)
	if err == nil {
		return newReader(body, opt.Since), nil
	}
	if errdefs.IsNotImplemented(err) { // its log driver is none
		return nil, runtime.ErrNotFound
	}
	if !errdefs.IsNotFound(err) {
		return nil, err
	}
	f, err := os.Open(filepath.Join(d.logDir(taskID), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, runtime.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if opt.Tail == 0 {
		return newReader(f, opt.Since), nil
	}
	defer f.Close()
	return tail(newReader(f, opt.Since), opt.Tail)
}

// keepLog copies a container's output as the engine sends it.
func (d *Driver) keepLog(ctx context.Context, taskID, name string) (err error) {
	body, err := d.engineLogs(ctx, taskID, name, container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true})
	if errdefs.IsNotFound(err) || errdefs.IsNotImplemented(err) {
		return nil // there is none, or nothing is kept of its output
	}
	if errdefs.IsConflict(err) {
		return nil // its removal has begun, which comes after its log was kept: by a process that was killed over it
	}
	if err != nil && d.sendsAway(ctx, taskID, name) {
		return nil // the engine does not give what it has kept; a task is removed all the same
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if err := os.MkdirAll(d.logDir(taskID), 0o700); err != nil {
		return err
	}
	path := filepath.Join(d.logDir(taskID), name)
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// sendsAway says whether the container's log driver is one that the engine can answer for only while the other side is there, even of what it
// has kept.
func (d *Driver) sendsAway(ctx context.Context, taskID, name string) bool {
	in, err := d.cli.ContainerInspect(ctx, d.name(taskID, name))
	if err != nil || in.HostConfig == nil {
		return false
	}
	switch in.HostConfig.LogConfig.Type {
	case logs.DriverFluentd, logs.DriverSyslog, logs.DriverGELF, logs.DriverSplunk, logs.DriverJournald:
		return true
	}
	return false
}

// LogDrivers are those of the engine that not every host has.
func (d *Driver) LogDrivers(ctx context.Context) []string {
	info, err := d.cli.Info(ctx)
	if err != nil {
		return nil
	}
	here, err := d.onThisHost(ctx)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc([]string{logs.DriverSplunk, logs.DriverJournald}, func(driver string) bool {
		return !slices.Contains(info.Plugins.Log, driver) || driver == logs.DriverJournald && (!here || !logs.HasJournal())
	})
}

// engineLogs is a container's output in frames. What comes from a terminal has none; it is given some.
func (d *Driver) engineLogs(ctx context.Context, taskID, name string, o container.LogsOptions) (io.ReadCloser, error) {
	in, err := d.cli.ContainerInspect(ctx, d.name(taskID, name))
	if err != nil {
		return nil, err
	}
	body, err := d.cli.ContainerLogs(ctx, in.ID, o)
	if err != nil || !in.Config.Tty {
		return body, err
	}
	return &framer{body: body, r: bufio.NewReaderSize(body, maxFrame)}, nil
}

// framer makes a frame of each line.
type framer struct {
	body  io.ReadCloser
	r     *bufio.Reader
	frame []byte // what is left of the present one
}

func (f *framer) Read(b []byte) (int, error) {
	if len(f.frame) == 0 {
		line, err := f.r.ReadSlice('\n')
		if len(line) == 0 {
			return 0, err
		}
		f.frame = append(binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, uint32(len(line))), line...)
	}
	n := copy(b, f.frame)
	f.frame = f.frame[n:]
	return n, nil
}

func (f *framer) Close() error { return f.body.Close() }

// RemoveLogs deletes the copies.
func (d *Driver) RemoveLogs(_ context.Context, taskID string) error {
	return os.RemoveAll(d.logDir(taskID))
}

// reader takes the engine's stream apart: frames of a stream number, a length and "TIME TEXT\n".
type reader struct {
	body  io.ReadCloser
	r     *bufio.Reader
	since time.Time
}

func newReader(body io.ReadCloser, since time.Time) *reader {
	return &reader{body, bufio.NewReader(body), since}
}

// maxFrame bounds what a frame may claim; the engine's are of 16 KiB and a time.
const maxFrame = 1 << 20

func (r *reader) Next() (runtime.LogLine, error) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(r.r, head[:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return runtime.LogLine{}, err
		}
		n := binary.BigEndian.Uint32(head[4:])
		if n > maxFrame {
			return runtime.LogLine{}, fmt.Errorf("a log frame of %d bytes", n)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r.r, b); err != nil {
			return runtime.LogLine{}, err
		}
		stamp, text, _ := bytes.Cut(b, []byte(" "))
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil {
			return runtime.LogLine{}, fmt.Errorf("a log line without its time: %w", err)
		}
		if at.Before(r.since) {
			continue
		}
		whole, ended := bytes.CutSuffix(text, []byte("\n"))
		return runtime.LogLine{At: at, Stderr: head[0] == 2, Text: string(whole), Partial: !ended}, nil
	}
}

func (r *reader) Close() error { return r.body.Close() }

// tail keeps the last n lines of r.
func tail(r *reader, n int) (runtime.LogReader, error) {
	var last lines
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return &last, nil
		}
		if err != nil {
			return nil, err
		}
		if last = append(last, l); len(last) > n {
			last = last[1:]
		}
	}
}

type lines []runtime.LogLine

func (l *lines) Next() (runtime.LogLine, error) {
	if len(*l) == 0 {
		return runtime.LogLine{}, io.EOF
	}
	first := (*l)[0]
	*l = (*l)[1:]
	return first, nil
}

func (l *lines) Close() error { return nil }
