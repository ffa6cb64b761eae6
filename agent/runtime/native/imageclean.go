//go:build linux && cgo

package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Cleaning up is decided from the folder, as it is at one moment: images are records, layers are needed by records and by tasks. Pulls
// and Creates go on beside it. Whoever is about to write a record holds the layers that it will name, from before it looks whether
// they are there (hold); a layer that is held, or that anybody held or let go since the folder was read, is not removed.
//
// Records go before layers, and a layer loses its name before its content goes: a crash leaves nothing that looks whole and is not.

// hold keeps layers from being removed until release.
func (s *imageStore) hold(diffIDs []string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
	for _, d := range diffIDs {
		s.held[d]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds++
		for _, d := range diffIDs {
			if s.held[d]--; s.held[d] == 0 {
				delete(s.held, d)
			}
		}
	}
}

// known is an image with the records that are of it.
type known struct {
	manifest string
	records  []string
	names    []string // references
	layers   []string
	used     time.Time
}

// CleanImages removes images that are of no use any more.
func (d *Driver) CleanImages(ctx context.Context, c runtime.Cleanup) ([]string, error) {
	s := d.images
	s.cleaning.Lock()
	defer s.cleaning.Unlock()
	s.mu.Lock()
	seen := s.holds
	s.mu.Unlock()
	tasks, err := d.imagesOfTasks()
	if err != nil {
		return nil, err
	}
	images, err := s.list()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	needed, gone := map[string]bool{}, []*known(nil)
	for _, r := range tasks {
		for _, l := range r.Config.DiffIDs {
			needed[l] = true
		}
	}
	for _, i := range images {
		if slices.ContainsFunc(tasks, func(r imageRecord) bool { return r.key() == i.manifest }) {
			for _, r := range i.records {
				if err := os.Chtimes(r, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
		} else if now.Sub(i.used) >= c.MinimumAge && (c.Most == 0 || len(gone) < c.Most) {
			gone = append(gone, i)
			continue
		}
		for _, l := range i.layers {
			needed[l] = true
		}
	}
	var names []string
	for _, i := range gone {
		// Its records may have been written anew since they were read: then it is in use, and the next clean-up's business.
		if !s.unlessHeld(seen, i.layers, func() error { return removeFiles(i.records) }, &err) {
			return names, err
		}
		names = append(names, cmp.Or(strings.Join(i.names, " "), i.manifest))
	}
	return names, errors.Join(err, s.cleanLayers(ctx, seen, needed, now.Add(-c.MinimumAge)))
}

// unlessHeld does something short if nobody has held or let go a layer since seen, nor holds one of these.
func (s *imageStore) unlessHeld(seen uint64, layers []string, do func() error, err *error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds != seen || slices.ContainsFunc(layers, func(l string) bool { return s.held[l] > 0 }) {
		return false
	}
	*err = do()
	return *err == nil
}

func removeFiles(paths []string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// cleanLayers removes layers that nothing needs and that have been here since before a time.
func (s *imageStore) cleanLayers(ctx context.Context, seen uint64, needed map[string]bool, before time.Time) error {
	dir := filepath.Join(s.dir, "layers")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		id := "sha256:" + e.Name()
		if strings.HasPrefix(e.Name(), ".") || needed[id] || ctx.Err() != nil {
			continue
		}
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("layer %s: %w", e.Name(), err)
		}
		if time.Unix(st.Ctim.Unix()).After(before) {
			continue
		}
		nameless := filepath.Join(dir, ".tmp-gone-"+e.Name())
		if s.unlessHeld(seen, []string{id}, func() error { return os.Rename(path, nameless) }, &err) {
			err = os.RemoveAll(nameless)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// imagesOfTasks are the images of all tasks of the folder.
func (d *Driver) imagesOfTasks() (list []imageRecord, err error) {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, "tasks"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var r taskRecord
		if _, err := readRecord(filepath.Join(d.taskFolder(e.Name()), "record.json"), &r); err != nil {
			return nil, err
		}
		for _, i := range r.Images {
			list = append(list, i)
		}
	}
	return list, nil
}

// list reads the records, the longest unused image first.
func (s *imageStore) list() ([]*known, error) {
	dir := filepath.Join(s.dir, "images")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	images := map[string]*known{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // being written
			continue
		}
		var r imageRecord
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err == nil {
			_, err = readRecord(path, &r)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil {
			continue
		}
		i := images[r.key()]
		if i == nil {
			i = &known{manifest: r.key()}
			images[r.key()] = i
		}
		i.records, i.layers = append(i.records, path), append(i.layers, r.Config.DiffIDs...)
		if r.Reference != "" {
			i.names = append(i.names, r.Reference)
		}
		if info.ModTime().After(i.used) {
			i.used = info.ModTime()
		}
	}
	var list []*known
	for _, i := range images {
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b *known) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.manifest, b.manifest)) })
	return list, nil
}
