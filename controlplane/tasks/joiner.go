package tasks

import agentapi "github.com/seed-2f228079/neargate/api/agent"

// maxLine bounds what is joined to one line. A longer one is cut into several: nobody fills our memory by never ending one.
const maxLine = 1 << 20

// joiner makes whole lines of the parts that long ones come in. The streams of a container are independent of one another.
type joiner struct {
	container      string
	stdout, stderr *LogLine // of which more is to come
}

// join returns the lines that end in chunk.
func (j *joiner) join(chunk []*agentapi.LogLine) []LogLine {
	lines := make([]LogLine, 0, len(chunk))
	for _, l := range chunk {
		open, name := &j.stdout, stdout
		if l.Stderr {
			open, name = &j.stderr, stderr
		}
		if *open == nil {
			*open = &LogLine{Time: l.At.AsTime(), Container: j.container, Stream: name}
		}
		(*open).Message += l.Text
		if !l.Partial || len((*open).Message) >= maxLine {
			lines = append(lines, **open)
			*open = nil
		}
	}
	return lines
}

// rest returns the lines that did not end.
func (j *joiner) rest() (lines []LogLine) {
	for _, open := range []*LogLine{j.stdout, j.stderr} {
		if open != nil {
			lines = append(lines, *open)
		}
	}
	j.stdout, j.stderr = nil, nil
	return lines
}
