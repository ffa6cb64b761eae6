package blob

// Named has files written under a name from the start, as where the file system cannot do otherwise.
func (s *Store) Named() { s.unnamed = false }

// Unnamed says whether files are written without a name.
func (s *Store) Unnamed() bool { return s.unnamed }
