package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	maxRelayed = 64 << 20 // a beat about ten thousand nodes has a few megabytes
	maxError   = 4 << 10
	// relayTimeout is how long the leader may take over one message.
	relayTimeout = 20 * time.Second
)

// Relay passes a dispatcher's message on to the leader.
func (p *Peers) Relay(ctx context.Context, msg *dispatcher.Relay) (*dispatcher.RelayAnswer, error) {
	body, err := proto.Marshal(msg)
	if err != nil {
		return nil, err
	}
	answer := &dispatcher.RelayAnswer{}
	text, err := p.ask(ctx, "/dispatcher", body)
	if err == nil {
		err = proto.Unmarshal(text, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("relay to the leader: %w", err)
	}
	return answer, nil
}

// ask puts a question to the leader, another server, and returns its answer.
func (p *Peers) ask(ctx context.Context, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	leader, err := p.Leader(ctx)
	switch {
	case err != nil:
		return nil, err
	case leader == "":
		return nil, errors.New("this server has become the leader itself") // whoever asks tries again, here
	}
	return p.askServer(ctx, leader, path, body)
}

// askServer puts a question to a server.
func (p *Peers) askServer(ctx context.Context, id, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: path}, Header: http.Header{}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }}
	a, _, err := send(p.relays, id, r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	limit := int64(maxRelayed)
	if a.StatusCode != http.StatusOK {
		limit = maxError
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, limit))
	switch {
	case err != nil:
		return nil, err
	case a.StatusCode == http.StatusMisdirectedRequest:
		return nil, state.ErrNotLeader
	case a.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("server %s: %s", id, text)
	}
	return text, nil
}

// relayed answers what other servers ask of the leader.
func (p *Peers) relayed() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /dispatcher", p.answers(func(ctx context.Context, from string, body []byte) ([]byte, error) {
		msg := &dispatcher.Relay{}
		if err := proto.Unmarshal(body, msg); err != nil {
			return nil, err
		}
		answer, err := p.Dispatcher.Relayed(ctx, from, msg)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(answer)
	}))
	mux.HandleFunc("POST /admission", p.answers(func(ctx context.Context, _ string, body []byte) ([]byte, error) {
		var a Admission
		if err := json.Unmarshal(body, &a); err != nil {
			return nil, err
		}
		return json.Marshal(p.admit(ctx, a))
	}))
	mux.HandleFunc("POST /address", p.answers(p.readdress))
	mux.HandleFunc("POST /membership", p.answers(p.membership))
	mux.HandleFunc("POST /authority", p.answers(p.handAuthority))
	mux.HandleFunc("POST /server-key", p.answers(func(ctx context.Context, from string, body []byte) ([]byte, error) {
		return nil, p.noteKey(ctx, from, body)
	}))
	mux.HandleFunc("POST /standing", p.answers(func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		s, err := p.Standing(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		return json.Marshal(s)
	}))
	if p.Registry != nil {
		mux.HandleFunc("POST /pulls", p.answers(func(ctx context.Context, from string, body []byte) ([]byte, error) {
			return nil, p.Registry.TakePulls(ctx, from, body)
		}))
	}
	if p.Blobs != nil {
		serveBlobs(mux, p.Blobs, p.Log)
		serveUploads(mux, p.Blobs, p.Log)
	}
	if p.Streams != nil {
		p.serveStreams(mux)
	}
	return mux
}

func (p *Peers) answers(f func(ctx context.Context, from string, body []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, _ := r.Context().Value(peerKey{}).(string)
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRelayed))
		var text []byte
		if err == nil {
			text, err = f(r.Context(), from, body)
		}
		switch {
		case errors.Is(err, state.ErrNotLeader):
			w.WriteHeader(http.StatusMisdirectedRequest)
		case err != nil:
			p.Log.Debug("another server asked for what cannot be done", "from", from, "path", r.URL.Path, "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			_, _ = w.Write(text) // it may be gone
		}
	}
}
