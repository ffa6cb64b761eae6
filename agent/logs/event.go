package logs

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// MaxEvent is the longest text of one event, in bytes; longer ones are cut, as Docker's awslogs driver does.
const MaxEvent = 256<<10 - 26

// Event is a log event: a line, or several that belong together.
type Event struct {
	At   time.Time // of its first line
	Last time.Time // of its last line: how far the log has been read with it
	Text string
}

// Assembler makes events of lines: it joins the parts of a long line and, with a pattern, the lines that follow one that matches.
// What it holds is at most one event.
type Assembler struct {
	Start *regexp.Regexp // a line that matches begins an event; nil: every line does

	held    bool
	event   Event
	text    strings.Builder
	partial bool // the line at the end of text goes on
	stderr  bool // of that line
}

// Add takes a line and returns the events that are complete by it.
func (a *Assembler) Add(l runtime.LogLine) []Event {
	var out []Event
	goesOn := a.held && a.partial && a.stderr == l.Stderr
	if a.held && !goesOn && (a.partial || a.Start == nil || a.Start.MatchString(l.Text)) {
		out = append(out, a.Flush()...)
	}
	separator := 0
	if a.held && !goesOn {
		separator = 1
	}
	if a.held && a.text.Len()+separator+len(l.Text) > MaxEvent {
		out = append(out, a.Flush()...)
		separator = 0
	}
	if !a.held {
		a.held, a.event = true, Event{At: l.At}
	}
	if separator > 0 {
		a.text.WriteByte('\n')
	}
	a.text.WriteString(l.Text)
	a.event.Last, a.partial, a.stderr = l.At, l.Partial, l.Stderr
	if a.Start == nil && !l.Partial {
		out = append(out, a.Flush()...)
	}
	return out
}

// Held says since when a line waits for what may belong to it.
func (a *Assembler) Held() (since time.Time, ok bool) { return a.event.At, a.held }

// Flush returns what is held. An event without text is none.
func (a *Assembler) Flush() []Event {
	if !a.held {
		return nil
	}
	e := a.event
	e.Text = a.text.String()
	a.text.Reset()
	a.held, a.partial = false, false
	if e.Text == "" {
		return nil
	}
	return []Event{e}
}

// timeParts are the regular expressions of strftime's conversions.
var timeParts = map[byte]string{
	'a': `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`,
	'A': `(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)`,
	'b': `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)`,
	'B': `(?:January|February|March|April|May|June|July|August|September|October|November|December)`,
	'd': `(?:0?[1-9]|[12][0-9]|3[01])`,
	'e': `(?: ?[1-9]|[12][0-9]|3[01])`,
	'f': `[0-9]{1,9}`,
	'H': `(?:[01]?[0-9]|2[0-3])`,
	'I': `(?:0?[1-9]|1[0-2])`,
	'j': `(?:[0-2][0-9]{2}|3[0-5][0-9]|36[0-6])`,
	'L': `\.[0-9]{3}`,
	'm': `(?:0?[1-9]|1[0-2])`,
	'M': `[0-5]?[0-9]`,
	'p': `[AP]M`,
	'S': `(?:[0-5]?[0-9]|60)`,
	'y': `[0-9]{2}`,
	'Y': `[0-9]{4}`,
	'z': `[+-][0-9]{2}:?[0-9]{2}`,
	'Z': `[A-Z]{1,5}`,
	'%': `%`,
}

// TimePattern makes of a strftime format (option awslogs-datetime-format) the pattern of lines that have such a time.
func TimePattern(format string) (*regexp.Regexp, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteString(regexp.QuoteMeta(format[i : i+1]))
			continue
		}
		if i++; i == len(format) {
			return nil, fmt.Errorf("the time format %q ends in %%", format)
		}
		part, ok := timeParts[format[i]]
		if !ok {
			return nil, fmt.Errorf("the time format %q has %%%c, which is not known", format, format[i])
		}
		b.WriteString(part)
	}
	return regexp.Compile(b.String())
}
