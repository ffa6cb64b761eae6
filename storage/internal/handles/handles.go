// Package handles keeps files open that were used of late, so that many files need a bounded number of handles.
package handles

import (
	"container/list"
	"errors"
	"os"
	"sync"
)

// Cache is of open files, by their paths. It is safe for concurrent use.
type Cache struct {
	limit int

	mu   sync.Mutex
	open map[string]*handle
	idle list.List // of handles nobody uses; the longest idle first
}

type handle struct {
	path string
	file *os.File
	uses int
	idle *list.Element // while uses is 0
	gone bool          // closed when the last use ends
}

// New keeps at most limit files open that nobody uses just then.
func New(limit int) *Cache { return &Cache{limit: limit, open: map[string]*handle{}} }

// Use calls fn with the file, which is made if create is set.
func (c *Cache) Use(path string, create bool, fn func(*os.File) error) error {
	h, err := c.acquire(path, create)
	if err != nil {
		return err
	}
	defer c.release(h)
	return fn(h.file)
}

func (c *Cache) acquire(path string, create bool) (*handle, error) {
	c.mu.Lock()
	if h := c.open[path]; h != nil {
		h.uses++
		if h.idle != nil {
			c.idle.Remove(h.idle)
			h.idle = nil
		}
		c.mu.Unlock()
		return h, nil
	}
	c.mu.Unlock()
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.open[path]; h != nil { // another was as quick
		f.Close()
		h.uses++
		if h.idle != nil {
			c.idle.Remove(h.idle)
			h.idle = nil
		}
		return h, nil
	}
	h := &handle{path: path, file: f, uses: 1}
	c.open[path] = h
	return h, nil
}

func (c *Cache) release(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.uses--; h.uses > 0 {
		return
	}
	if h.gone {
		h.file.Close() // nothing is buffered: what had to be durable was synced
		return
	}
	h.idle = c.idle.PushBack(h)
	for c.idle.Len() > c.limit {
		c.drop(c.idle.Front().Value.(*handle))
	}
}

// drop takes h out of the table. c.mu is held.
func (c *Cache) drop(h *handle) {
	delete(c.open, h.path)
	if h.gone = true; h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
		h.file.Close()
	}
}

// Forget closes the file of a path that is removed; who reads it now reads on.
func (c *Cache) Forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.open[path]; h != nil {
		c.drop(h)
	}
}

// Close closes all of them.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, h := range c.open {
		errs = append(errs, h.file.Close())
	}
	clear(c.open)
	c.idle.Init()
	return errors.Join(errs...)
}
