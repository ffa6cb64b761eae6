package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// Streams are the other servers' streams, and what the leader takes for one. logs.Servers says what for.
type Streams struct{ Peers *Peers }

// maxCopied bounds a batch between servers.
const maxCopied = stream.MaxBatch + 4<<10

// Self is this server's id.
func (s Streams) Self() string { return s.Peers.ID }

// Others are the members besides this server, as the leader tells now.
func (s Streams) Others(ctx context.Context) ([]string, error) {
	if err := s.Peers.learn(ctx); err != nil {
		return nil, err
	}
	return s.Peers.Others(), nil
}

// Copy appends an encoded batch to a server's stream.
func (s Streams) Copy(ctx context.Context, server, name string, batch []byte) error {
	a, err := s.call(ctx, server, http.MethodPost, "/streams/"+name, "", batch)
	if err != nil {
		return err
	}
	return a.Body.Close()
}

// Stat says what a server has of streams.
func (s Streams) Stat(ctx context.Context, server string, names []string) ([]stream.Info, error) {
	body, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	a, err := s.call(ctx, server, http.MethodPost, "/streams", "", body)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	var infos []stream.Info
	if err := json.NewDecoder(io.LimitReader(a.Body, maxRelayed)).Decode(&infos); err != nil {
		return nil, fmt.Errorf("what streams a server has: %w", err)
	}
	if len(infos) != len(names) {
		return nil, fmt.Errorf("what streams a server has: %d answers to %d questions", len(infos), len(names))
	}
	return infos, nil
}

// Fetch hands out the batches that a server has from a position on. They come with their lengths; a 0 says that these were all.
func (s Streams) Fetch(ctx context.Context, server, name string, from uint64, take func(batch []byte) error) error {
	a, err := s.call(ctx, server, http.MethodGet, "/streams/"+name, "from="+strconv.FormatUint(from, 10), nil)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(a.Body, head[:]); err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 {
			return nil
		}
		if n > maxCopied {
			return fmt.Errorf("read a stream: a batch of %d bytes", n)
		}
		batch := make([]byte, n)
		if _, err := io.ReadFull(a.Body, batch); err != nil {
			return fmt.Errorf("read a stream: %w", err)
		}
		if err := take(batch); err != nil {
			return err
		}
	}
}

func (s Streams) call(ctx context.Context, server, method, path, query string, body []byte) (*http.Response, error) {
	r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	a, _, err := send(s.Peers.relays, server, r.WithContext(ctx))
	if err != nil || a.StatusCode == http.StatusOK || a.StatusCode == http.StatusNoContent {
		return a, err
	}
	defer a.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(a.Body, maxError))
	return nil, fmt.Errorf("server %s: status %d: %s", server, a.StatusCode, bytes.TrimSpace(text))
}

// Ship has the leader take a batch of a container's output.
func (s Streams) Ship(ctx context.Context, batch *agentapi.ShipBatch) (mark uint64, err error) {
	body, err := proto.Marshal(batch)
	if err != nil {
		return 0, err
	}
	text, err := s.Peers.ask(ctx, "/logs", body)
	if err != nil || len(text) == 0 {
		return 0, status.Error(codes.Unavailable, fmt.Sprintf("pass logs on to the leader: %v", err))
	}
	if text[0] == shipRefused {
		why := status.New(codes.Unknown, "").Proto()
		if err := proto.Unmarshal(text[1:], why); err != nil {
			return 0, err
		}
		return 0, status.FromProto(why).Err()
	}
	var ack agentapi.ShipAck
	err = proto.Unmarshal(text[1:], &ack)
	return ack.Mark, err
}

// An answer to /logs is an acknowledgement or a gRPC status, behind one of these.
const (
	shipTaken byte = iota
	shipRefused
)

// ship answers another server's Ship.
func (p *Peers) ship(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var batch agentapi.ShipBatch
	if err := proto.Unmarshal(body, &batch); err != nil {
		return nil, err
	}
	mark, err := p.Logs.Take(ctx, &batch)
	if err != nil {
		why, err := proto.Marshal(status.Convert(err).Proto())
		return append([]byte{shipRefused}, why...), err
	}
	ack, err := proto.Marshal(&agentapi.ShipAck{Mark: mark})
	return append([]byte{shipTaken}, ack...), err
}

// serveStreams answers other servers.
func (p *Peers) serveStreams(mux *http.ServeMux) {
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			err := f(w, r)
			switch {
			case errors.Is(err, stream.ErrPosition):
				http.Error(w, err.Error(), http.StatusConflict)
			case err != nil:
				p.Log.Warn("stream for another server", "method", r.Method, "path", r.URL.Path, "error", err)
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	if p.Logs != nil {
		mux.HandleFunc("POST /logs", p.answers(p.ship))
	}
	handle("POST /streams", func(w http.ResponseWriter, r *http.Request) error {
		var names []string
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRelayed)).Decode(&names); err != nil {
			return err
		}
		infos := make([]stream.Info, len(names))
		for i, name := range names {
			var err error
			if infos[i], err = p.Streams.Stat(name); err != nil {
				return err
			}
		}
		return json.NewEncoder(w).Encode(infos)
	})
	handle("POST /streams/{name}", func(w http.ResponseWriter, r *http.Request) error {
		batch, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCopied))
		if err == nil {
			_, err = p.Streams.AppendCopy(r.Context(), r.PathValue("name"), batch, false)
		}
		if err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	handle("GET /streams/{name}", func(w http.ResponseWriter, r *http.Request) error {
		from, err := strconv.ParseUint(r.FormValue("from"), 10, 64)
		if err != nil {
			return err
		}
		for batch, err := range p.Streams.Copy(r.PathValue("name"), from) {
			if err != nil {
				p.Log.Warn("read a stream for another server", "stream", r.PathValue("name"), "error", err)
				panic(http.ErrAbortHandler) // the end is missing
			}
			var head [4]byte
			binary.LittleEndian.PutUint32(head[:], uint32(len(batch)))
			_, err = w.Write(head[:])
			if err == nil {
				_, err = w.Write(batch)
			}
			if err != nil {
				return nil // it is gone
			}
		}
		_, _ = w.Write(make([]byte, 4))
		return nil
	})
}
