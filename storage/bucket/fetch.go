package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// fetchOwner owns the uploads, in the local store, that are downloads on their way.
const fetchOwner = "neargate: fetched from the object store"

// step is how much of an object is written between two looks of those who read along.
const step = 1 << 20

// fetchAttempts is how often a download goes on where its connection was cut.
const fetchAttempts = 4

// fetch is one object on its way to the local store. Whoever asks for it meanwhile reads along; that nobody does any more does not end it.
//
// Invariant: nobody gets the last byte before all of them were held against the digest. So what is wrong is never taken for whole.
type fetch struct {
	digest blob.Digest
	begun  chan struct{} // closed when size and file are known, or it is over
	done   chan struct{} // closed when it is over

	mu      sync.Mutex
	size    int64
	got     int64
	more    chan struct{} // closed, and replaced, when got has grown
	file    *os.File      // nil: it is small, and read when it is here
	readers int           // of file, and the one who writes it
	err     error         // set before done is closed
}

// join takes part in the fetch of a blob, which it begins if need be.
func (b *Bucket) join(ctx context.Context, d blob.Digest) *fetch {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.fetching[d]
	if f == nil {
		f = &fetch{digest: d, begun: make(chan struct{}), done: make(chan struct{}), more: make(chan struct{})}
		b.fetching[d] = f
		go func() { // who asked first may leave before the others
			err := b.fetch(context.WithoutCancel(ctx), f)
			b.mu.Lock()
			delete(b.fetching, d)
			b.mu.Unlock()
			f.end(err)
		}()
	}
	return f
}

// Fetch brings a blob into the local store; blob.ErrNotFound: the object store does not have it. Of whoever asks for one blob at a time, one fetches.
func (b *Bucket) Fetch(ctx context.Context, d blob.Digest) error {
	if _, err := b.Local.Stat(d); !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	f := b.join(ctx, d)
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Open reads a blob from the local store or, if it is not there, while it comes there. The reader of one that comes fails before its last byte should
// it be wrong; it ends with ctx.
func (b *Bucket) Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error) {
	for {
		r, info, err := b.Local.Open(d)
		if err == nil {
			b.used(ctx, info)
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return r, info, err
		}
		f := b.join(ctx, d)
		select {
		case <-f.begun:
		case <-ctx.Done():
			return nil, blob.Info{}, ctx.Err()
		}
		if r := f.follow(ctx); r != nil {
			return r, blob.Info{Digest: d, Size: f.size}, nil
		}
		select { // it is small, or here by now
		case <-f.done:
		case <-ctx.Done():
			return nil, blob.Info{}, ctx.Err()
		}
		if f.err != nil {
			return nil, blob.Info{}, f.err
		}
	}
}

// fetch downloads.
func (b *Bucket) fetch(ctx context.Context, f *fetch) error {
	lease, err := b.Local.Lease(ctx, f.digest)
	if err != nil {
		return err
	}
	defer lease.Release()
	if _, err := b.Local.Stat(f.digest); !errors.Is(err, blob.ErrNotFound) {
		return err // the one before ended between the look and now
	}
	err = b.download(ctx, f)
	if errors.Is(err, blob.ErrNoSpace) {
		b.Pressed()
	}
	if errors.Is(err, blob.ErrMismatch) {
		b.markWrong(f.digest, true)
		b.Log.Error("the object store has wrong content for a blob", "digest", f.digest)
		return fmt.Errorf("%w %s", ErrWrong, f.digest) // nobody who asks has sent anything that does not match
	}
	return err
}

func (b *Bucket) download(ctx context.Context, f *fetch) error {
	if b.lately(f.digest) {
		return blob.ErrNotFound
	}
	body, o, err := b.Objects.Get(ctx, b.blobKey(f.digest), 0)
	if err := b.outcome(ctx, err); err != nil {
		return err
	}
	defer func() { body.Close() }()
	if o.Size <= small {
		return b.downloadSmall(ctx, f, body)
	}
	u, err := b.Local.Begin(fetchOwner)
	if err != nil {
		return err
	}
	defer u.Release()
	file, err := u.Follow()
	if err != nil {
		return errors.Join(err, u.Cancel())
	}
	f.begin(o.Size, file)
	defer f.leave()
	for attempt := 1; u.Size() < o.Size; {
		n, err := u.Append(io.LimitReader(body, min(step, o.Size-u.Size())))
		f.grow(n)
		if err == nil && n > 0 {
			continue
		}
		if err != nil && !errors.Is(err, blob.ErrReceive) || attempt == fetchAttempts {
			if err == nil || errors.Is(err, blob.ErrReceive) {
				err = b.outcome(ctx, fmt.Errorf("the object of %s ended at byte %d of %d: %v", f.digest, u.Size(), o.Size, err))
			}
			return errors.Join(err, u.Cancel())
		}
		attempt++
		body.Close()
		rest, _, err := b.Objects.Get(ctx, b.blobKey(f.digest), u.Size())
		if err := b.outcome(ctx, err); err != nil {
			body = io.NopCloser(nil)
			return errors.Join(err, u.Cancel())
		}
		body = rest
	}
	kept, info, err := u.Commit(ctx, f.digest)
	if err != nil {
		return errors.Join(err, b.Local.CancelUploads(fetchOwner)) // but for those that are written to
	}
	kept.Release()
	b.cache.grew(info.Size, b.CacheBytes)
	return nil
}

// downloadSmall keeps what is read in one piece.
func (b *Bucket) downloadSmall(ctx context.Context, f *fetch, body io.Reader) error {
	kept, info, err := b.Local.Put(ctx, f.digest, body)
	kept.Release()
	if errors.Is(err, blob.ErrReceive) {
		return b.outcome(ctx, err)
	}
	if err == nil {
		b.cache.grew(info.Size, b.CacheBytes)
	}
	return err
}

func (f *fetch) begin(size int64, file *os.File) {
	f.mu.Lock()
	f.size, f.file, f.readers = size, file, 1
	f.mu.Unlock()
	close(f.begun)
}

func (f *fetch) grow(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got += n
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fetch) end(err error) {
	f.mu.Lock()
	f.err = err
	begun := f.file != nil
	f.mu.Unlock()
	if !begun {
		close(f.begun)
	}
	close(f.done)
}

// follow reads along; nil: there is no file (any more) to read.
func (f *fetch) follow(ctx context.Context) *follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers == 0 {
		return nil
	}
	f.readers++
	return &follower{fetch: f, stop: ctx.Done()}
}

func (f *fetch) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers--; f.readers == 0 {
		f.file.Close()
	}
}

// follower is one reader of a fetch.
type follower struct {
	fetch  *fetch
	stop   <-chan struct{}
	offset int64
	err    error
	closed bool
}

// Read waits for what has not come yet.
func (r *follower) Read(p []byte) (int, error) {
	if r.offset >= r.fetch.size {
		return 0, io.EOF
	}
	n, err := r.fetch.wait(r.stop, r.offset)
	if err != nil {
		r.err = err
		return 0, err
	}
	m, err := r.fetch.file.ReadAt(p[:min(int64(len(p)), n)], r.offset)
	r.offset += int64(m)
	if err == io.EOF && m > 0 {
		err = nil
	}
	return m, err
}

// wait says how much can be read from offset on.
func (f *fetch) wait(stop <-chan struct{}, offset int64) (int64, error) {
	for {
		f.mu.Lock()
		upTo, more := min(f.got, f.size-1), f.more
		f.mu.Unlock()
		if offset < upTo {
			return upTo - offset, nil
		}
		select {
		case <-more:
		case <-f.done:
			if f.err != nil {
				return 0, f.err
			}
			return f.size - offset, nil
		case <-stop:
			return 0, context.Canceled
		}
	}
}

// Err is why Read has failed.
func (r *follower) Err() error { return r.err }

// Seek implements io.Seeker.
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.fetch.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.offset = offset
	return offset, nil
}

// Close leaves the fetch, which goes on.
func (r *follower) Close() error {
	if !r.closed {
		r.closed = true
		r.fetch.leave()
	}
	return nil
}
