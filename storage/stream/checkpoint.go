package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Checkpoint syncs the segments that the journal speaks of and removes it. Appends go on meanwhile, in a new one. A sync that failed
// ends checkpoints until the streams are opened again: the kernel may have dropped what it could not write and says so once, so
// from then on only the journals are sure to have it.
func (s *Store) Checkpoint() error {
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	if s.unsynced != nil {
		return fmt.Errorf("the journals are kept until the streams are opened again: %w", s.unsynced)
	}
	old, dirty, err := s.switchJournal()
	if err != nil || old == nil {
		return err
	}
	if err := errors.Join(s.syncSegments(dirty), old.file.Close()); err != nil {
		s.unsynced = err
		return err
	}
	return os.Remove(s.journalPath(old.n))
}

func (s *Store) switchJournal() (old *journal, dirty map[string]bool, err error) {
	err = s.commit(&op{run: func() error {
		if s.journal.size == 0 {
			return nil
		}
		j, err := s.newJournal(s.journal.n + 1)
		if err != nil {
			return err
		}
		old, dirty = s.journal, s.dirty
		s.journal, s.dirty = j, map[string]bool{}
		return nil
	}})
	return old, dirty, err
}

// syncSegments makes segments durable, with their names. One that is not there any more has been dropped.
func (s *Store) syncSegments(paths map[string]bool) error {
	folders := map[string]bool{s.dir: true}
	for path := range paths {
		err := s.files.Use(path+".seg", false, (*os.File).Sync)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return noSpace("sync segment", err)
		}
		folders[filepath.Dir(path)], folders[filepath.Dir(filepath.Dir(path))] = true, true
	}
	for folder := range folders {
		if err := syncDir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
