package stream

// Drop removes the oldest segments while what a segment holds is all older than before, or the stream has more than most bytes on the
// disk (0: any number). The segment that is appended to is closed first when all of it is too old. It returns how many records went.
func (s *Store) Drop(name string, before int64, most int64) (uint64, error) {
	st, err := s.stream(name)
	if err != nil {
		return 0, err
	}
	st.mu.RLock()
	was := st.info().First
	st.mu.RUnlock()
	err = s.commit(&op{stream: st, floor: func() uint64 { return st.below(before, most) }})
	if err != nil {
		return 0, err
	}
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.info().First - was, nil
}

// below is the floor that retention wants.
func (st *stream) below(before, most int64) uint64 {
	var size, floor = int64(0), uint64(0)
	for _, seg := range st.segments {
		size += seg.size
	}
	for _, seg := range st.segments {
		n := len(seg.blocks)
		old := n > 0
		for _, b := range seg.blocks {
			old = old && b.max < before
		}
		over := most > 0 && size > most && seg != st.segments[len(st.segments)-1]
		if !old && !over || n == 0 {
			break
		}
		size -= seg.size
		floor = seg.blocks[n-1].next
	}
	return floor
}

// Delete removes the stream. Its name must not be used again.
func (s *Store) Delete(name string) error {
	st, err := s.stream(name)
	if err != nil {
		return err
	}
	return s.commit(&op{stream: st, floor: func() uint64 { return gone }})
}

func (s *Store) publishFloor(o *op) {
	st, floor := o.stream, o.first
	st.mu.Lock()
	var dropped []*segment
	if o.opened != nil {
		st.segments = append(st.segments, o.opened)
	}
	for len(st.segments) > 0 && (floor == gone || st.segments[0].base < floor) {
		dropped, st.segments = append(dropped, st.segments[0]), st.segments[1:]
	}
	st.wake()
	st.mu.Unlock()
	for _, seg := range dropped {
		s.files.Forget(seg.path + ".seg")
		s.files.Forget(seg.path + ".idx")
		delete(s.dirty, seg.path)
	}
	if floor == gone {
		st.plan.deleted = true
		s.mu.Lock()
		delete(s.streams, st.name)
		s.mu.Unlock()
	}
	if err := s.removeBelow(st.name, floor); err != nil {
		// The journal says that they are gone; but for that it must not end before they are.
		s.log.Error("cannot remove segments", "stream", st.name, "error", err)
	}
}
