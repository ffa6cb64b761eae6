package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// logs looks at what a container wrote.
func (s *suite) logs(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)

	t.Run("LinesAndTail", func(t *testing.T) {
		task, _ := h.task("none", command("lines", "500"))
		h.start(task, "main")
		h.wait(task, "main")
		all := h.lines(task, "main", runtime.LogOptions{})
		if len(all) != 500 || all[0].Text != "line 0" || all[499].Text != "line 499" {
			t.Fatalf("%d lines", len(all))
		}
		last := h.lines(task, "main", runtime.LogOptions{Tail: 3})
		if len(last) != 3 || last[0].Text != "line 497" {
			t.Errorf("tail = %v", last)
		}
		if late := h.lines(task, "main", runtime.LogOptions{Since: time.Now().Add(time.Hour)}); len(late) != 0 {
			t.Errorf("since the future: %d lines", len(late))
		}
		if none := h.lines(task, "main", runtime.LogOptions{Since: all[0].At}); len(none) != 500 {
			t.Errorf("since the first line: %d lines", len(none))
		}
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
		if kept := h.lines(task, "main", runtime.LogOptions{}); len(kept) != 500 {
			t.Errorf("after remove: %d lines", len(kept))
		}
		if err := h.RemoveLogs(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Logs(ctx, task.ID, "main", runtime.LogOptions{}); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("after RemoveLogs: %v", err)
		}
	})
	t.Run("Streams", func(t *testing.T) {
		task, _ := h.task("none", command("print", "out", "then", "warn", "err"))
		h.start(task, "main")
		h.wait(task, "main")
		got := map[string]bool{}
		for _, l := range h.lines(task, "main", runtime.LogOptions{}) {
			got[l.Text] = l.Stderr
		}
		if len(got) != 2 || got["out"] || !got["err"] {
			t.Errorf("lines = %v", got)
		}
	})
	t.Run("LongLine", func(t *testing.T) {
		task, _ := h.task("none", command("long", "40000", "then", "print", "next"))
		h.start(task, "main")
		h.wait(task, "main")
		lines := h.lines(task, "main", runtime.LogOptions{})
		var text strings.Builder
		for i, l := range lines[:len(lines)-1] {
			if len(l.Text) > 16<<10 || l.Partial != (i < len(lines)-2) {
				t.Errorf("part %d: %d bytes, partial %v", i, len(l.Text), l.Partial)
			}
			text.WriteString(l.Text)
		}
		if text.Len() != 40000 || lines[len(lines)-1].Text != "next" {
			t.Errorf("%d bytes in %d lines", text.Len(), len(lines))
		}
	})
	t.Run("NoneKept", func(t *testing.T) {
		quiet := command("lines", "5")
		quiet.Log = &agentapi.LogConfiguration{Driver: "none"}
		task, _ := h.task("none", quiet)
		h.start(task, "main")
		if e := h.wait(task, "main"); e.Code != 0 {
			t.Errorf("ended with %+v", e)
		}
		for _, when := range []string{"ended", "removed"} {
			if r, err := h.Logs(ctx, task.ID, "main", runtime.LogOptions{}); !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("%s: logs %v, %v", when, r, err)
			}
			if err := h.Remove(ctx, task.ID); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("Drivers", func(t *testing.T) {
		datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer datagrams.Close()
		messages, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer messages.Close()
		forward, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer forward.Close()
		events := make(chan string, 100)
		collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if b, err := io.ReadAll(r.Body); err == nil && len(b) > 0 {
				events <- string(b) + r.Header.Get("Authorization")
			}
		}))
		defer collector.Close()
		for driver, test := range map[string]struct {
			options map[string]string
			come    func() string // what has come elsewhere
		}{
			"json-file": {map[string]string{"max-size": "1m", "max-file": "2", "labels": "team", "tag": "{{.Name}}"}, func() string { return "" }},
			"syslog": {map[string]string{"syslog-address": "udp://" + datagrams.LocalAddr().String(), "tag": "t-{{.ID}}", "syslog-format": "rfc5424"}, func() string {
				var all strings.Builder
				for b := make([]byte, 1000); strings.Count(all.String(), "line ") < 20; {
					n, _, err := datagrams.ReadFrom(b)
					if err != nil {
						return err.Error()
					}
					all.Write(append(b[:n], '\n'))
				}
				return all.String()
			}},
			"gelf": {map[string]string{"gelf-address": "udp://" + messages.LocalAddr().String(), "gelf-compression-type": "none", "tag": "t-{{.Name}}"}, func() string {
				var all strings.Builder
				for b := make([]byte, 2000); strings.Count(all.String(), "line ") < 20; {
					n, _, err := messages.ReadFrom(b)
					if err != nil {
						return err.Error()
					}
					all.Write(append(b[:n], '\n'))
				}
				return all.String()
			}},
			"splunk": {map[string]string{"splunk-url": collector.URL, "splunk-token": "secret", "tag": "t-{{.Name}}"}, func() string {
				var all strings.Builder
				for strings.Count(all.String(), "line ") < 20 {
					select {
					case e := <-events:
						if !strings.HasSuffix(e, "Splunk secret") {
							return "without its token: " + e
						}
						all.WriteString(e)
					case <-time.After(time.Minute):
						return "only " + all.String()
					}
				}
				return all.String()
			}},
			"fluentd": {map[string]string{"fluentd-address": forward.Addr().String(), "tag": "t-{{.Name}}", "mode": "blocking"}, func() string {
				c, err := forward.Accept()
				if err != nil {
					return err.Error()
				}
				defer c.Close()
				b, err := io.ReadAll(c) // until the container has ended
				return fmt.Sprint(string(b), err)
			}},
		} {
			c := command("lines", "20")
			c.Log = &agentapi.LogConfiguration{Driver: driver, Options: test.options}
			c.Labels = map[string]string{"team": "a"}
			task, _ := h.task("none", c)
			come := make(chan string, 1)
			go func() { come <- test.come() }()
			h.start(task, "main")
			h.wait(task, "main")
			if got := h.lines(task, "main", runtime.LogOptions{}); len(got) != 20 || got[19].Text != "line 19" {
				t.Errorf("%s: %d lines are kept here", driver, len(got))
			}
			if all := <-come; driver != "json-file" && (strings.Count(all, "line ") != 20 || !strings.Contains(all, "t-")) {
				t.Errorf("%s: elsewhere is %q", driver, all)
			}
			if err := h.Remove(ctx, task.ID); err != nil {
				t.Fatal(err)
			}
		}
		c := command("print", "never")
		c.Log = &agentapi.LogConfiguration{Driver: "fluentd", Options: map[string]string{"fluentd-address": "127.0.0.1:1"}}
		task, _ := h.task("none", c)
		var failed *runtime.StartError
		if _, err := h.Start(ctx, task.ID, "main"); !errors.As(err, &failed) || !strings.Contains(failed.Reason, "failed to initialize logging driver") {
			t.Errorf("without anybody there: %v", err)
		}
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
	})
	if s.features.SendsLogs {
		t.Run("FireLens", h.fireLens)
		t.Run("DriverThatTakesNothing", func(t *testing.T) {
			deaf, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer deaf.Close()
			for _, mode := range []string{"blocking", "non-blocking"} {
				c := command("lines", "400000") // many times what sockets hold
				c.Log = &agentapi.LogConfiguration{Driver: "fluentd", Options: map[string]string{"fluentd-address": deaf.Addr().String(), "mode": mode}}
				if mode != "blocking" {
					c.Log.Options["max-buffer-size"] = "64k"
				}
				task, _ := h.task("none", c)
				h.start(task, "main")
				began := time.Now()
				if mode == "blocking" { // it can not end before it is stopped
					limit, cancel := context.WithTimeout(ctx, 2*time.Second)
					if e, err := h.Driver.Wait(limit, task.ID, "main"); err == nil {
						t.Errorf("it ended with %+v although nobody takes what it writes", e)
					}
					cancel()
					if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
						t.Error(err)
					}
				} else if e := h.wait(task, "main"); e.Code != 0 {
					t.Errorf("it was held up: %+v", e)
				}
				if took := time.Since(began); took > 3*time.Minute {
					t.Errorf("%s: it took %v", mode, took)
				}
				if err := h.Remove(ctx, task.ID); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("Follow", func(t *testing.T) {
		task, _ := h.task("none", command("tick"))
		h.start(task, "main")
		r, err := h.Logs(ctx, task.ID, "main", runtime.LogOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for i := range 5 {
			if l, err := r.Next(); err != nil || !strings.HasPrefix(l.Text, "tick") {
				t.Fatalf("line %d: %+v, %v", i, l, err)
			}
		}
		if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
		}
		canceled, cancel := context.WithCancel(ctx)
		task, _ = h.task("none", command("wait"))
		h.start(task, "main")
		h.until(task, "main", "waiting")
		r, err = h.Logs(canceled, task.ID, "main", runtime.LogOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := r.Next(); err == nil {
			t.Error("a line after the last one")
		}
	})
}
