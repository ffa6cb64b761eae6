package peers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/internal/trust"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// several are the peers of three servers in this process. They reach one another over loopback, without TLS.
type several struct {
	*testcluster.Cluster
	of    map[string]*peers.Peers
	blobs map[string]*peers.Blobs
	logs  map[string]*stream.Store
	// keys are the servers' folders of keys, and authorities what was opened there.
	keys        map[string]string
	mu          sync.Mutex
	authorities map[string]*trust.Authority

	stuck chan struct{} // for every request that is not answered

	dialling sync.Mutex
	at       map[string]string // addresses by protocol and id
	dialled  map[string]string // ids of those who have dialled, by the address that they have there
}

// nobody dispatches.
type nobody struct{}

func (nobody) Relayed(context.Context, string, *dispatcher.Relay) (*dispatcher.RelayAnswer, error) {
	return nil, errors.New("there is no dispatcher")
}

// takes answers for the leader: container "none" is refused.
type takes struct{ *state.Store }

func (l takes) Take(_ context.Context, b *agentapi.ShipBatch) (uint64, error) {
	if l.Leadership().Term == 0 || b.Container == "none" {
		return 0, status.Error(codes.NotFound, "no such stream")
	}
	return b.Mark + 1, nil
}

// move has a server be found elsewhere, and says where it was.
func (s *several) move(protocol, id, address string) (was string) {
	s.dialling.Lock()
	defer s.dialling.Unlock()
	was = s.at[protocol+id]
	s.at[protocol+id] = address
	return was
}

// nowhere is an address where nobody listens.
const nowhere = "127.0.0.1:1"

func newSeveral(t *testing.T) *several {
	s := &several{Cluster: testcluster.New(t, testcluster.Config{Servers: 3, Schema: slices.Concat(peers.Schema, upgrade.Schema, controlplane.Schema), Configure: func(o *raft.Options) {
		testcluster.Patient(o)
		o.Autopilot.Interval = time.Second // likewise, nobody is taken for ill
	}}), of: map[string]*peers.Peers{}, blobs: map[string]*peers.Blobs{}, logs: map[string]*stream.Store{}, at: map[string]string{}, dialled: map[string]string{}, keys: map[string]string{}, authorities: map[string]*trust.Authority{}, stuck: make(chan struct{})}
	listen := func(protocol, id string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.move(protocol, id, l.Addr().String())
		return l
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, server := range s.Servers() {
		id := server.ID
		s.openAuthority(t, id)
		store, err := blob.Open(t.TempDir(), blob.Options{})
		if err != nil {
			t.Fatal(err)
		}
		events, err := stream.Open(t.TempDir(), stream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { events.Close() })
		s.logs[id] = events
		p := peers.New(peers.Config{
			ID: id, Engine: server.Engine(), Store: server.Store(), Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler), Dispatcher: nobody{}, Blobs: store, Streams: events, Authority: opened{s, id}, Logs: takes{server.Store()},
			Dial: func(ctx context.Context, protocol, to, _ string) (net.Conn, error) {
				s.dialling.Lock() // until it is noted whose connection it is
				defer s.dialling.Unlock()
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.at[protocol+to])
				if err == nil {
					s.dialled[conn.LocalAddr().String()] = id
				}
				return conn, err
			},
			Peer: func(conn net.Conn) (string, bool) {
				s.dialling.Lock()
				defer s.dialling.Unlock()
				return s.dialled[conn.RemoteAddr().String()], true
			},
			Forwards: listen(peers.ProtocolForward, id), Relays: listen(peers.ProtocolRelay, id),
			Forwarded: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/cut":
					panic(http.ErrAbortHandler)
				case "/stuck":
					s.stuck <- struct{}{}
					<-r.Context().Done()
					return
				case "/echo":
					echo(t, w)
					return
				}
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s: %s %s %s", id, r.Method, r.Host, body)
			}),
		})
		s.of[id], s.blobs[id] = p, &peers.Blobs{Peers: p, Store: store, Copies: 2}
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { cancel() })
	}
	return s
}

// TestAdmit: a token that the cluster has made serves one host, whichever server it comes to.
func TestAdmit(t *testing.T) {
	s := newSeveral(t)
	leader := s.Leader()
	followers := s.Followers(leader)
	ends := time.Now().Add(time.Hour)
	first := peers.Admission{Token: "t", Ends: ends, Host: "agent a"}
	for _, at := range []*testcluster.Server{followers[0], followers[1], leader} { // its answers were lost
		if err := s.of[at.ID].Admit(t.Context(), first); err != nil {
			t.Errorf("at %s: %v", at.ID, err)
		}
	}
	for _, at := range s.Servers() {
		if err := s.of[at.ID].Admit(t.Context(), peers.Admission{Token: "t", Ends: ends, Host: "agent b"}); !errors.Is(err, peers.ErrUsed) {
			t.Errorf("another host at %s: %v", at.ID, err)
		}
	}
	taken := peers.Admission{Token: "u", Ends: ends, Host: "server x", Server: "x", Address: leader.Address()}
	if err := s.of[followers[0].ID].Admit(t.Context(), taken); !errors.Is(err, peers.ErrAddressInUse) {
		t.Errorf("a server at another one's address: %v", err)
	}
}

// TestSend: a request gets to a server as it is, and what cannot get there is known not to have.
func TestSend(t *testing.T) {
	s := newSeveral(t)
	from, to := s.of["s0"], "s1"
	send := func(id, path string) (string, bool, error) {
		r := &http.Request{Method: "PUT", Host: "example.test", URL: &url.URL{Path: path}, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("body")), ContentLength: 4}
		answer, sent, err := from.Send(t.Context(), id, r.WithContext(t.Context()))
		if err != nil {
			return "", sent, err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return string(text), sent, err
	}
	if text, _, err := send(to, "/"); err != nil || text != "s1: PUT example.test body" {
		t.Errorf("%q, %v", text, err)
	}
	if _, sent, err := send(to, "/cut"); err == nil || !sent {
		t.Errorf("a connection that is cut: sent %v, %v", sent, err)
	}
	s.move(peers.ProtocolForward, "s2", nowhere)
	for _, id := range []string{"s2", "nobody"} {
		if _, sent, err := send(id, "/"); err == nil || sent {
			t.Errorf("to %s: sent %v, %v", id, sent, err)
		}
	}
}

// TestSendToOneThatLeadsNoMore: who has sent something to the leader does not wait for it once another server leads.
func TestSendToOneThatLeadsNoMore(t *testing.T) {
	s := newSeveral(t)
	leader := s.Leader()
	followers := s.Followers(leader)
	s.Await("who follows knows the leader", func() bool { return followers[0].Store().Leadership().Leader == leader.ID })
	broken := make(chan error, 1)
	go func() {
		r := &http.Request{Method: "GET", Host: "example.test", URL: &url.URL{Path: "/stuck"}, Header: http.Header{}}
		_, sent, err := s.of[followers[0].ID].Send(t.Context(), leader.ID, r.WithContext(t.Context()))
		if !sent {
			err = errors.Join(err, errors.New("it says that nothing was sent"))
		}
		broken <- err
	}()
	select {
	case err := <-broken:
		t.Fatalf("while the leader leads: %v", err)
	case <-s.stuck:
	}
	leader.Isolate()
	s.Leader(leader)
	select {
	case err := <-broken:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it is still waited for")
	}
}

// echo changes to a protocol in which what comes goes back.
func echo(t *testing.T, w http.ResponseWriter) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		t.Error(err)
		return
	}
	_, _ = io.Copy(conn, buffered)
}

// TestSendUpgrade: a connection that changes its protocol carries both ways, to the leader as to everybody else.
func TestSendUpgrade(t *testing.T) {
	s := newSeveral(t)
	leader := s.Leader()
	follower := s.Followers(leader)[0]
	for _, to := range []string{leader.ID, follower.ID} {
		from := s.of[s.Followers(leader)[1].ID]
		r := &http.Request{Method: "GET", Host: "example.test", URL: &url.URL{Path: "/echo"}, Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}}
		answer, _, err := from.Send(t.Context(), to, r.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		conn, ok := answer.Body.(io.ReadWriteCloser)
		if !ok || answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s answered %s, with a %T", to, answer.Status, answer.Body)
		}
		got := make([]byte, 5)
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", to, got, err)
		}
		conn.Close()
	}
}

// TestBlobs: a blob is passed on to as many servers as it takes, and fetched from whoever has it.
func TestBlobs(t *testing.T) {
	s := newSeveral(t)
	d := blob.Sum([]byte("a layer"))
	lease, _, err := s.blobs["s0"].Store.Put(t.Context(), d, strings.NewReader("a layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	has := func() (ids []string) {
		for _, id := range []string{"s0", "s1", "s2"} {
			if text, err := s.blobs[id].Store.ReadAll(d, 100); err == nil && string(text) == "a layer" {
				ids = append(ids, id)
			}
		}
		return ids
	}
	// Who is well comes first: the choice is the same again once all are.
	s.Await("all servers to be well", func() bool {
		members, err := s.Leader().Engine().Members(t.Context())
		return err == nil && len(members) == 3 && !slices.ContainsFunc(members, func(m state.Member) bool { return !m.Healthy })
	})
	for range 2 {
		if err := s.blobs["s0"].Spread(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if got := has(); len(got) != 2 {
			t.Fatalf("it is on %v", got)
		}
	}
	for _, id := range []string{"s1", "s2"} {
		if err := s.blobs[id].Fetch(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
	if got := has(); len(got) != 3 {
		t.Errorf("it is on %v", got)
	}
	if err := s.blobs["s1"].Fetch(t.Context(), blob.Sum([]byte("never seen"))); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("what nobody has: %v", err)
	}
	s.move(peers.ProtocolRelay, "s1", nowhere)
	s.move(peers.ProtocolRelay, "s2", nowhere)
	lonely := blob.Sum([]byte("another"))
	second, _, err := s.blobs["s0"].Store.Put(t.Context(), lonely, strings.NewReader("another"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Release()
	s.of["s0"].CloseIdle()
	if err := s.blobs["s0"].Spread(t.Context(), lonely); err == nil {
		t.Error("a blob was spread to nobody")
	}
}

// TestFetchUpload: an upload follows who asks for it, content and all, and nobody else has it then.
func TestFetchUpload(t *testing.T) {
	s := newSeveral(t)
	content := strings.Repeat("a layer that is only half there ", 50_000)
	u, err := s.blobs["s1"].Store.Begin("owner")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	u.Release()
	name := blob.UploadName("owner", u.ID())
	for _, id := range []string{"s0", "s2", "s1"} {
		if err := s.blobs[id].FetchUpload(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for other, b := range s.blobs {
			got, err := b.Store.Resume("owner", u.ID())
			switch {
			case other != id && !errors.Is(err, blob.ErrNotFound):
				t.Errorf("%s has it, and %s: %v", id, other, err)
			case other == id && err != nil:
				t.Error(err)
			case other == id:
				if got.Size() != int64(len(content)) {
					t.Errorf("%d bytes of %d came", got.Size(), len(content))
				}
				got.Release()
			}
		}
	}
	if err := s.blobs["s0"].FetchUpload(t.Context(), blob.UploadName("somebody", u.ID())); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("another's: %v", err)
	}
}

// TestStreams: a stream is copied to a server and from it, and what an agent has brought gets to the leader.
func TestStreams(t *testing.T) {
	s := newSeveral(t)
	ctx := t.Context()
	link := peers.Streams{Peers: s.of["s0"]}
	if others, err := link.Others(ctx); err != nil || len(others) != 2 || link.Self() != "s0" {
		t.Fatalf("others %v, %v", others, err)
	}
	var sent [][]byte
	for i := range uint64(3) {
		b, err := stream.EncodeBatch(i, &stream.Batch{Mark: i + 1, Records: []stream.Record{{Time: int64(i), Data: []byte("event")}}})
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, b)
		for range 2 {
			if err := link.Copy(ctx, "s1", "aaa", b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := link.Copy(ctx, "s2", "aaa", sent[1]); err == nil {
		t.Error("a copy has left something out")
	}
	infos, err := link.Stat(ctx, "s1", []string{"aaa", "bbb"})
	if err != nil || infos[0].Next != 3 || infos[0].Mark != 3 || infos[0].Bytes != 15 || infos[1].Next != 0 {
		t.Errorf("%+v, %v", infos, err)
	}
	var got [][]byte
	if err := link.Fetch(ctx, "s1", "aaa", 1, func(b []byte) error { got = append(got, b); return nil }); err != nil || !slices.EqualFunc(got, sent[1:], bytes.Equal) {
		t.Errorf("%d batches, %v", len(got), err)
	}
	relay := s.move(peers.ProtocolRelay, "s2", nowhere)
	s.of["s0"].CloseIdle()
	if _, err := link.Stat(ctx, "s2", nil); err == nil {
		t.Error("a server that is away answers")
	}
	follower := peers.Streams{Peers: s.of[s.Followers(s.Leader())[0].ID]}
	s.move(peers.ProtocolRelay, "s2", relay)
	if mark, err := follower.Ship(ctx, &agentapi.ShipBatch{Container: "app", Mark: 4}); err != nil || mark != 5 {
		t.Errorf("mark %d, %v", mark, err)
	}
	if _, err := follower.Ship(ctx, &agentapi.ShipBatch{Container: "none"}); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such stream" {
		t.Errorf("refused: %v", err)
	}
}
