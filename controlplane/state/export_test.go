package state

// Waiting is how many watchers wait in Next.
func (s *Store) Waiting() int {
	f := &s.machine.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}
