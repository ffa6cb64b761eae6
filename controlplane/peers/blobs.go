package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// Blobs are the other servers' blobs. A blob is passed on before what refers to it is committed, and fetched from whoever has it where
// it is missing; it is verified by its digest either way.
type Blobs struct {
	Peers *Peers
	Store *blob.Store // this server's
	// Copies is on how many servers a blob is when Spread returns, this one included; with fewer servers, on all of them.
	Copies int

	mu       sync.Mutex
	fetching map[blob.Digest]*fetch
}

type fetch struct {
	done chan struct{}
	err  error
}

// spreadTimeout bounds how long a server may take to say whether it has a blob. Passing one on takes as long as it takes.
const spreadTimeout = 10 * time.Second

// Others implements registry.Copies.
func (b *Blobs) Others() (ids []string, known bool) {
	others := b.Peers.Others()
	b.Peers.mu.Lock()
	defer b.Peers.mu.Unlock()
	return others, len(b.Peers.members) > 0 // this server is one
}

// ReportPulls implements registry.Copies.
func (b *Blobs) ReportPulls(ctx context.Context, report []byte) error {
	_, err := b.Peers.ask(ctx, "/pulls", report)
	return err
}

// Spread returns once enough servers have the blob, on their disks. What they hold they keep for a while, although nothing refers to it yet.
func (b *Blobs) Spread(ctx context.Context, d blob.Digest) error {
	if err := b.Peers.learn(ctx); err != nil {
		return err
	}
	others := b.Peers.Others()
	missing := min(b.Copies-1, len(others))
	var errs []error
	for _, id := range others {
		if missing <= 0 {
			return nil
		}
		if err := b.pass(ctx, id, d); err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", id, err))
			continue
		}
		missing--
	}
	if missing <= 0 {
		return nil
	}
	return fmt.Errorf("pass blob %s on to %d more servers: %w", d, missing, errors.Join(errs...))
}

// pass has a server hold the blob.
func (b *Blobs) pass(ctx context.Context, id string, d blob.Digest) error {
	limit, cancel := context.WithTimeout(ctx, spreadTimeout)
	defer cancel()
	status, err := b.call(limit, id, http.MethodPost, d, nil, 0)
	if err != nil || status == http.StatusNoContent {
		return err
	}
	r, info, err := b.Store.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	status, err = b.call(ctx, id, http.MethodPut, d, r, info.Size)
	if err == nil && status != http.StatusNoContent {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

func (b *Blobs) call(ctx context.Context, id, method string, d blob.Digest, body io.Reader, size int64) (int, error) {
	a, err := b.request(ctx, id, method, d, body, size)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(a.Body, maxError))
	return a.StatusCode, err
}

func (b *Blobs) request(ctx context.Context, id, method string, d blob.Digest, body io.Reader, size int64) (*http.Response, error) {
	return b.send(ctx, id, method, "/blobs/"+string(d), body, size)
}

func (b *Blobs) send(ctx context.Context, id, method, path string, body io.Reader, size int64) (*http.Response, error) {
	r := &http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(body), size
	}
	a, _, err := send(b.Peers.relays, id, r.WithContext(ctx))
	return a, err
}

// Fetch brings a blob here from a server that has it; blob.ErrNotFound: nobody within reach does. Whoever asks for it meanwhile waits for
// the same.
func (b *Blobs) Fetch(ctx context.Context, d blob.Digest) error {
	b.mu.Lock()
	f := b.fetching[d]
	if f == nil {
		f = &fetch{done: make(chan struct{})}
		if b.fetching == nil {
			b.fetching = map[blob.Digest]*fetch{}
		}
		b.fetching[d] = f
		go func() { // who asked first may leave before the others
			f.err = b.fetch(context.WithoutCancel(ctx), d)
			b.mu.Lock()
			delete(b.fetching, d)
			b.mu.Unlock()
			close(f.done)
		}()
	}
	b.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Blobs) fetch(ctx context.Context, d blob.Digest) error {
	if len(b.Peers.Others()) == 0 {
		if err := b.Peers.learn(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, id := range b.Peers.Others() {
		err := b.fetchFrom(ctx, id, d)
		if err == nil {
			return nil
		}
		if !errors.Is(err, blob.ErrNotFound) {
			errs = append(errs, fmt.Errorf("server %s: %w", id, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("fetch blob %s: %w", d, errors.Join(errs...))
	}
	return blob.ErrNotFound
}

func (b *Blobs) fetchFrom(ctx context.Context, id string, d blob.Digest) error {
	a, err := b.request(ctx, id, http.MethodGet, d, nil, 0)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return blob.ErrNotFound
	default:
		return fmt.Errorf("status %d", a.StatusCode)
	}
	lease, _, err := b.Store.Put(ctx, d, a.Body)
	lease.Release() // a record refers to it, or it is young
	return err
}

// FetchUpload brings an upload here that began on another server; blob.ErrNotFound: nobody within reach has it. That server has it no more then.
func (b *Blobs) FetchUpload(ctx context.Context, name string) error {
	if err := b.Peers.learn(ctx); err != nil {
		return err
	}
	for _, id := range b.Peers.Others() {
		err := b.fetchUpload(ctx, id, name)
		if err == nil {
			return nil
		}
		if !errors.Is(err, blob.ErrNotFound) && ctx.Err() == nil {
			b.Peers.Log.Warn("an upload may have been begun on a server that does not give it away", "server", id, "error", err)
		}
	}
	return blob.ErrNotFound
}

func (b *Blobs) fetchUpload(ctx context.Context, id, name string) error {
	a, err := b.send(ctx, id, http.MethodPost, "/uploads/"+name, nil, 0)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusOK:
		return b.Store.Adopt(name, a.Body, a.ContentLength)
	case http.StatusNotFound:
		return blob.ErrNotFound
	}
	return fmt.Errorf("status %d", a.StatusCode)
}

// serveUploads gives uploads to other servers.
func serveUploads(mux *http.ServeMux, store *blob.Store, log *slog.Logger) {
	mux.HandleFunc("POST /uploads/{name}", func(w http.ResponseWriter, r *http.Request) {
		err := store.HandOver(r.PathValue("name"), func(content io.Reader, size int64) error {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, err := io.Copy(w, content)
			return err
		})
		switch {
		case errors.Is(err, blob.ErrNotFound):
			w.WriteHeader(http.StatusNotFound)
		case errors.Is(err, blob.ErrBusy):
			w.WriteHeader(http.StatusConflict)
		case err != nil:
			log.Warn("an upload for another server", "error", err)
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
}

// serveBlobs answers other servers.
func serveBlobs(mux *http.ServeMux, store *blob.Store, log *slog.Logger) {
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request, d blob.Digest) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			d, err := blob.ParseDigest(r.PathValue("digest"))
			if err == nil {
				err = f(w, r, d)
			}
			switch {
			case errors.Is(err, blob.ErrNotFound):
				w.WriteHeader(http.StatusNotFound)
			case err != nil:
				log.Warn("blob for another server", "method", r.Method, "path", r.URL.Path, "error", err)
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
	}
	handle("GET /blobs/{digest}", func(w http.ResponseWriter, _ *http.Request, d blob.Digest) error {
		r, info, err := store.Open(d)
		if err != nil {
			return err
		}
		defer r.Close()
		w.Header().Set("Content-Length", fmt.Sprint(info.Size))
		_, _ = io.Copy(w, r) // a cut one does not have the digest
		return nil
	})
	handle("POST /blobs/{digest}", func(w http.ResponseWriter, r *http.Request, d blob.Digest) error {
		if err := store.Touch(r.Context(), d); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	handle("PUT /blobs/{digest}", func(w http.ResponseWriter, r *http.Request, d blob.Digest) error {
		lease, _, err := store.Put(r.Context(), d, r.Body)
		if err != nil {
			return err
		}
		lease.Release()
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}
