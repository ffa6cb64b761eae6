package logs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

func texts(events []Event) (out []string) {
	for _, e := range events {
		out = append(out, e.Text)
	}
	return out
}

func TestEvents(t *testing.T) {
	at := func(i int) time.Time { return time.Unix(int64(i), 0) }
	for _, c := range []struct {
		name  string
		start string
		lines []runtime.LogLine
		want  []string
	}{
		{"lines", "", []runtime.LogLine{{Text: "a"}, {Text: ""}, {Text: "b"}}, []string{"a", "b"}},
		{"parts", "", []runtime.LogLine{{Text: "a", Partial: true}, {Text: "b", Partial: true}, {Text: "c"}, {Text: "d"}}, []string{"abc", "d"}},
		{"parts of two outputs", "", []runtime.LogLine{{Text: "a", Partial: true}, {Text: "x", Stderr: true}, {Text: "b"}}, []string{"a", "x", "b"}},
		{"pattern", `^INFO|^WARN`, []runtime.LogLine{{Text: "lost"}, {Text: "INFO a"}, {Text: " at b"}, {Text: ""}, {Text: "WARN c"}}, []string{"lost", "INFO a\n at b\n", "WARN c"}},
		{"pattern and parts", `^INFO`, []runtime.LogLine{{Text: "INFO ", Partial: true}, {Text: "a"}, {Text: "INFO b"}}, []string{"INFO a", "INFO b"}},
	} {
		a := &Assembler{}
		if c.start != "" {
			a.Start = regexp.MustCompile(c.start)
		}
		var got []Event
		for i, l := range c.lines {
			l.At = at(i)
			got = append(got, a.Add(l)...)
		}
		got = append(got, a.Flush()...)
		if !slices.Equal(texts(got), c.want) {
			t.Errorf("%s: %q, want %q", c.name, texts(got), c.want)
		}
		last := time.Time{}
		for _, e := range got {
			if e.At.Before(last) || e.Last.Before(e.At) {
				t.Errorf("%s: event %+v comes after %v", c.name, e, last)
			}
			last = e.Last
		}
	}
}

func TestLongEventIsCut(t *testing.T) {
	a := &Assembler{}
	var got []Event
	part := strings.Repeat("x", MaxLine)
	for i := range 40 {
		got = append(got, a.Add(runtime.LogLine{At: time.Unix(int64(i), 0), Text: part, Partial: true})...)
	}
	got = append(got, a.Flush()...)
	if len(got) != 3 || len(got[0].Text) > MaxEvent || got[0].Last != time.Unix(14, 0) || len(strings.Join(texts(got), "")) != 40*MaxLine {
		t.Errorf("%d events, the first of %d bytes up to %v", len(got), len(got[0].Text), got[0].Last)
	}
}

func TestTimePattern(t *testing.T) {
	for format, c := range map[string]struct{ yes, no string }{
		"%Y-%m-%d %H:%M:%S": {"x 2026-01-31 23:59:60 y", "2026-13-31 23:59:00"},
		"[%b %d, %Y":        {"[Jan 02, 2026 10:00] m", "[Foo 02, 2026"},
		"%d/%b/%Y:%H:%M %z": {"10/Oct/2000:13:25 -0700", "10/Oct/2000"},
		"%I:%M %p 100%%":    {"01:02 PM 100%", "01:02 XM 100%"},
	} {
		re, err := TimePattern(format)
		if err != nil {
			t.Errorf("%s: %v", format, err)
		} else if !re.MatchString(c.yes) || re.MatchString(c.no) {
			t.Errorf("%s is %s", format, re)
		}
	}
	for _, bad := range []string{"%", "%Q"} {
		if _, err := TimePattern(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestTimesGrow: no two records of a log have one time, also when two outputs write at once.
func TestTimesGrow(t *testing.T) {
	path := t.TempDir() + "/c.log"
	w, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	for _, stderr := range []bool{false, true} {
		go func() {
			for i := range 200 {
				w.Copy(strings.NewReader(fmt.Sprintf("%d\n%d\n", i, i)), stderr)
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	w.Close()
	r, err := Read(t.Context(), path, runtime.LogOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := read(t, r)
	if len(lines) != 800 {
		t.Fatalf("%d lines", len(lines))
	}
	for i := 1; i < len(lines); i++ {
		if !lines[i].At.After(lines[i-1].At) {
			t.Fatalf("line %d has time %v after %v", i, lines[i].At, lines[i-1].At)
		}
	}
}
