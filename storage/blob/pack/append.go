package pack

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed-2f228079/neargate/storage/internal/group"
)

// op is what somebody waits for: records on their way into the log.
type op struct {
	group.Turn
	records []*record
}

type record struct {
	kind byte
	key  []byte
	data []byte
	time uint32
	from *place // of what is moved or deleted: the record is not written when the value is there no more

	at place // set by who appends; zero: it was not written
}

// maxGroup bounds what is synced at once.
const maxGroup = 8 << 20

// touchEvery bounds how often a value is written again only for its time: this is how exact Info.Modified is after a touch.
const touchEvery = time.Hour

// Put keeps a value, durably, and says what it is then. One that is here is only as if written now.
func (l *Log) Put(key, data []byte) (Info, error) {
	if !validKey(key) || len(data) > MaxValue {
		return Info{}, fmt.Errorf("a key of %d and a value of %d bytes", len(key), len(data))
	}
	if there, _, err := l.Get(key); err == nil && string(there) == string(data) {
		return l.touch(key, data)
	}
	return l.put(key, data)
}

func (l *Log) put(key, data []byte) (Info, error) {
	r := &record{kind: kindValue, key: key, data: data, time: l.now()}
	err := l.commit(r)
	return infoOf(r.at), err
}

// Touch makes a value as if written now, to the hour.
func (l *Log) Touch(key []byte) error {
	data, _, err := l.Get(key)
	if err != nil {
		return err
	}
	_, err = l.touch(key, data)
	return err
}

func (l *Log) touch(key, data []byte) (Info, error) {
	if info, ok := l.Stat(key); ok && l.opt.Clock.Now().Sub(info.Modified) < touchEvery {
		return info, nil
	}
	return l.put(key, data)
}

// Remove deletes the value that was seen; one that has taken its place stays. It reports whether it was there.
func (l *Log) Remove(key []byte, seen Info) (bool, error) {
	r := &record{kind: kindDeletion, key: key, data: encodePlace(seen.place), time: l.now(), from: &seen.place}
	err := l.commit(r)
	return r.at != place{}, err
}

func (l *Log) now() uint32 { return uint32(l.opt.Clock.Now().Unix()) }

func (l *Log) commit(records ...*record) error {
	return l.queue.Do(&op{records: records}, take, l.work)
}

func take(pending []*op) int {
	size, n := 0, 0
	for ; n < len(pending) && size < maxGroup; n++ {
		for _, r := range pending[n].records {
			size += len(r.data)
		}
	}
	return max(n, 1)
}

// work appends what a group brings, syncs once, and shows what is durable.
func (l *Log) work(members []*op) {
	var wanted []*record
	l.mu.RLock()
	for _, o := range members {
		for _, r := range o.records {
			if l.current(r) {
				wanted = append(wanted, r)
			}
		}
	}
	l.mu.RUnlock()
	err := l.append(wanted)
	for _, o := range members {
		o.Done(err)
	}
}

// current says that what a record moves or deletes is there still. l.mu is held.
func (l *Log) current(r *record) bool {
	if r.from == nil {
		return true
	}
	p, ok := l.index.get(r.key)
	return ok && p.at(r.from.segment, r.from.offset)
}

func (l *Log) append(records []*record) error {
	if len(records) == 0 {
		return nil
	}
	if l.active == nil || l.active.size >= l.opt.SegmentBytes {
		if err := l.begin(); err != nil {
			return err
		}
	}
	s := l.active
	sync := false
	buffer := l.buffer[:0]
	for _, r := range records {
		r.at = place{s.number, uint32(s.size + int64(len(buffer))), uint32(len(r.data)), r.time}
		buffer = appendRecord(buffer, r.kind, r.key, r.data, r.time)
		sync = sync || r.kind == kindValue
	}
	if cap(buffer) <= 1<<20 { // what a large group needed is not kept
		l.buffer = buffer
	}
	if err := l.write(s, buffer, sync); err != nil {
		for _, r := range records {
			r.at = place{}
		}
		return fmt.Errorf("append to a segment: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.size += int64(len(buffer))
	for _, r := range records {
		if r.kind == kindDeletion || l.current(r) { // not what was deleted since, in this very group
			l.apply(r.kind, r.key, r.data, r.at)
		}
	}
	return nil
}

// write leaves the segment as it was, or has it appended to no more, when it fails.
func (l *Log) write(s *segment, b []byte, sync bool) error {
	return l.files.Use(l.path(s.number, ".seg"), false, func(f *os.File) error {
		if _, err := f.WriteAt(b, s.size); err != nil {
			if terr := f.Truncate(s.size); terr != nil {
				l.active = nil
				return errors.Join(err, terr)
			}
			return err
		}
		if !sync {
			return nil
		}
		err := f.Sync()
		if err != nil { // the kernel may have dropped pages, and says so once; what was there before had been synced
			l.active = nil
		}
		return err
	})
}

// apply does to the index what a record says. l.mu is held.
func (l *Log) apply(kind byte, key, data []byte, at place) {
	old, ok := l.index.get(key)
	switch kind {
	case kindValue:
		if ok {
			l.dead(key, old)
		}
		l.index.set(key, at)
		l.segments[at.segment].live += span(len(key), at.size)
	case kindDeletion:
		if segment, offset := decodePlace(data); ok && old.at(segment, offset) {
			l.dead(key, old)
			l.index.remove(key)
		}
	}
}

// dead takes a record from what its segment has. l.mu is held.
func (l *Log) dead(key []byte, p place) {
	if s := l.segments[p.segment]; s != nil {
		s.live -= span(len(key), p.size)
	}
}

// begin makes a new segment the last one. Its name is durable before anything in it is acknowledged.
func (l *Log) begin() error {
	n := uint32(1)
	l.mu.RLock()
	for other := range l.segments {
		n = max(n, other+1)
	}
	l.mu.RUnlock()
	name := l.path(n, ".seg")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	if err := errors.Join(f.Close(), syncDir(l.dir)); err != nil {
		return errors.Join(fmt.Errorf("begin a segment: %w", err), os.Remove(name))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active = &segment{number: n}
	l.segments[n] = l.active
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
