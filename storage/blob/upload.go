package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// session is what this process remembers of an upload. While it is small, that is its content; then the content is in a file, and the session
// can always be made again from that.
type session struct {
	mu       sync.Mutex // held by the one Upload that writes
	size     int64
	hash     hash.Hash // sha256 of the first size bytes
	inMemory bool
	content  []byte    // of one in memory
	held     int64     // of the store's budget
	wrote    time.Time // of one in memory: when something was written last
	over     bool      // it was committed or cancelled
}

// Upload is a resumable write, held by one caller at a time: it ends with Commit, Cancel or Release (to be resumed).
type Upload struct {
	store   *Store
	id      string
	name    string   // of the file in uploads/
	file    *os.File // nil while the content is in memory
	session *session
	done    bool
}

// Begin starts an upload that belongs to owner: an opaque name, without which the upload cannot be resumed. What is small enough to stay in
// memory is lost with the process: its client begins anew.
func (s *Store) Begin(owner string) (*Upload, error) {
	id := rand.Text()
	u := &Upload{store: s, id: id, name: UploadName(owner, id), session: &session{hash: sha256.New(), wrote: s.clock.Now()}}
	if u.session.inMemory = s.small > 0 && !s.settled.Load() && s.memory.take(sessionBytes); u.session.inMemory {
		u.session.held = sessionBytes
	} else if err := u.create(); err != nil {
		return nil, err
	}
	u.session.mu.Lock()
	s.mu.Lock()
	s.sessions[u.name] = u.session
	s.mu.Unlock()
	return u, nil
}

// create makes the upload's file.
func (u *Upload) create() (err error) {
	u.file, err = os.OpenFile(u.store.path("uploads", u.name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return noSpace("begin upload", err)
	}
	return nil
}

// Resume takes up an upload of owner: ErrNotFound when there is none (any more), ErrBusy when somebody is writing to it.
func (s *Store) Resume(owner, id string) (*Upload, error) {
	if !validID(id) {
		return nil, ErrNotFound
	}
	return s.resume(UploadName(owner, id), id)
}

func (s *Store) resume(name, id string) (*Upload, error) {
	s.mu.Lock()
	ses := s.sessions[name]
	if ses == nil {
		ses = &session{hash: sha256.New()}
		s.sessions[name] = ses
	}
	s.mu.Unlock()
	if !ses.mu.TryLock() {
		return nil, ErrBusy
	}
	u := &Upload{store: s, id: id, name: name, session: ses}
	if ses.over {
		ses.mu.Unlock()
		return nil, ErrNotFound
	}
	if ses.inMemory {
		return u, nil
	}
	if err := u.open(); err != nil {
		s.forget(u)
		return nil, err
	}
	return u, nil
}

// HandOver gives the upload of a name (UploadName) away: send gets what arrived so far, and the upload is gone here before its last
// byte is sent. So no two stores have one upload; should it be lost on the way, its client begins anew.
func (s *Store) HandOver(name string, send func(content io.Reader, size int64) error) error {
	if !validName(name) {
		return ErrNotFound
	}
	u, err := s.resume(name, name[:idLength])
	if err != nil {
		return err
	}
	content, err := u.content()
	if err != nil {
		u.Release()
		return notFound("hand upload over", err)
	}
	defer content.Close()
	size := u.Size()
	if err := u.Cancel(); err != nil {
		return err
	}
	return send(content, size)
}

// Adopt takes an upload over that another store gives away, under its name: all of content, or nothing.
func (s *Store) Adopt(name string, content io.Reader, size int64) error {
	if !validName(name) {
		return ErrNotFound
	}
	f, err := os.CreateTemp(s.path("partial"), "")
	if err != nil {
		return noSpace("adopt upload", err)
	}
	p := &partial{f, f.Name()}
	defer p.discard()
	n, err := io.Copy(f, content)
	if err == nil && n != size {
		err = fmt.Errorf("%w: %d of %d bytes", ErrReceive, n, size)
	}
	if err != nil {
		return noSpace("adopt upload", err)
	}
	if err := os.Link(p.name, s.path("uploads", name)); err != nil { // which fails if it is there
		return noSpace("adopt upload", err)
	}
	return nil
}

// open positions the file at its end, and hashes what another process wrote.
func (u *Upload) open() error {
	f, err := os.OpenFile(u.store.path("uploads", u.name), os.O_RDWR, 0)
	if err != nil {
		return notFound("resume upload", err)
	}
	u.file = f
	if _, err := f.Seek(u.session.size, io.SeekStart); err != nil {
		return fmt.Errorf("resume upload: %w", err)
	}
	n, err := io.Copy(u.session.hash, f)
	u.session.size += n
	if err != nil {
		return fmt.Errorf("resume upload: %w", err)
	}
	return nil
}

// ID is what Resume takes.
func (u *Upload) ID() string { return u.id }

// Size is how many bytes are there.
func (u *Upload) Size() int64 { return u.session.size }

// Append adds what r delivers. What arrived before an error stays, and the upload can go on from Size.
func (u *Upload) Append(r io.Reader) (int64, error) {
	n, err := u.store.copyHashed(sink{u}, u.session.hash, r)
	u.session.size += n
	u.session.wrote = u.store.clock.Now()
	return n, err
}

// Commit makes the upload the blob d, durable and leased to the caller. When the content is another it is ErrMismatch and the
// upload is gone; after any other error the upload stays and Commit may be tried again.
func (u *Upload) Commit(ctx context.Context, d Digest) (*Lease, Info, error) {
	got, err := u.digest(d.algorithm())
	if err != nil {
		u.Release()
		return nil, Info{}, err
	}
	if got != d {
		err := fmt.Errorf("%w: named %s, received %d bytes of %s", ErrMismatch, d, u.Size(), got)
		return nil, Info{}, errors.Join(err, u.Cancel())
	}
	lease, info, err := u.publish(ctx, d)
	if err != nil {
		u.Release()
		return nil, Info{}, err
	}
	u.store.forget(u)
	return lease, info, nil
}

// digest is of the whole upload. sha256 is known already; the rare sha512 is computed from the content.
func (u *Upload) digest(algorithm string) (Digest, error) {
	if algorithm == "sha256" {
		return digestOf(algorithm, u.session.hash), nil
	}
	h := Digest(algorithm).newHash()
	if u.session.inMemory {
		h.Write(u.session.content)
	} else if _, err := io.Copy(h, io.NewSectionReader(u.file, 0, u.session.size)); err != nil {
		return "", fmt.Errorf("hash upload: %w", err)
	}
	return digestOf(algorithm, h), nil
}

// Cancel removes the upload.
func (u *Upload) Cancel() error {
	var err error
	if !u.session.inMemory {
		err = os.Remove(u.store.path("uploads", u.name))
	}
	u.store.forget(u)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cancel upload: %w", err)
	}
	return nil
}

// Release leaves the upload for a later Resume. After Commit or Cancel it does nothing.
func (u *Upload) Release() {
	if u.done {
		return
	}
	u.done = true
	if u.store.settled.Load() {
		_ = u.settle() // else it is lost with the process, as in a crash
	}
	if u.file != nil {
		u.file.Close()
		u.file = nil
	}
	u.session.mu.Unlock()
}

// forget ends the session.
func (s *Store) forget(u *Upload) {
	s.mu.Lock()
	delete(s.sessions, u.name)
	s.mu.Unlock()
	u.session.over = true
	s.memory.give(u.session)
	u.Release()
}

// ExpireUploads removes uploads without a write for longer than the expiry, and says how many.
func (s *Store) ExpireUploads() (int, error) {
	entries, err := os.ReadDir(s.path("uploads"))
	if err != nil {
		return 0, fmt.Errorf("list uploads: %w", err)
	}
	oldest := s.clock.Now().Add(-s.expiry)
	n := 0
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || fi.ModTime().After(oldest) {
			continue
		}
		s.mu.Lock()
		ses := s.sessions[e.Name()]
		busy := ses != nil && !ses.mu.TryLock()
		if !busy {
			delete(s.sessions, e.Name())
			err = os.Remove(s.path("uploads", e.Name()))
		}
		s.mu.Unlock()
		if errors.Is(err, fs.ErrNotExist) { // it was finished meanwhile
			continue
		}
		if err != nil {
			return n, fmt.Errorf("expire upload: %w", err)
		}
		if !busy {
			n++
		}
	}
	return n + s.expireInMemory(oldest), nil
}

// UploadName is the name of an upload's file. It binds the file to its owner, so that finding the file is the ownership check.
func UploadName(owner, id string) string {
	sum := sha256.Sum256([]byte(owner))
	return id + "." + hex.EncodeToString(sum[:12])
}

const idLength = 26

// validID accepts what rand.Text makes and nothing that could leave the folder.
func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

func validName(name string) bool {
	id, owner, ok := strings.Cut(name, ".")
	return ok && validID(id) && len(owner) == 24 && strings.Trim(owner, "0123456789abcdef") == ""
}
