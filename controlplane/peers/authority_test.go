package peers_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// openAuthority opens a server's authority, which all of them have from the beginning.
func (s *several) openAuthority(t *testing.T, id string) {
	t.Helper()
	dir := t.TempDir()
	for _, other := range s.keys {
		text, err := os.ReadFile(filepath.Join(other, "authority.pem"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "authority.pem"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	a, err := trust.OpenAuthority(dir, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id], s.authorities[id] = dir, a
}

// opened is a server's authority as opened last.
type opened struct {
	s  *several
	id string
}

func (o opened) last() *trust.Authority {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	return o.s.authorities[o.id]
}

func (o opened) Ring() (trust.Ring, <-chan struct{})       { return o.last().Ring() }
func (o opened) Hand(id string, to []byte) ([]byte, error) { return o.last().Hand(id, to) }

// rotating are the rotations of several servers.
type rotating struct {
	*several
	t     *testing.T
	of    map[string]*peers.Rotation
	ends  map[string]func()
	looks atomic.Int64 // of all of them
}

func newRotating(t *testing.T) *rotating {
	r := &rotating{several: newSeveral(t), t: t, of: map[string]*peers.Rotation{}, ends: map[string]func(){}}
	for _, server := range r.Servers() {
		r.run(server.ID)
	}
	t.Cleanup(func() {
		for _, end := range r.ends {
			end()
		}
	})
	return r
}

// reopen has a server come back with what is on its disk.
func (r *rotating) reopen(id string) {
	r.t.Helper()
	a, err := trust.OpenAuthority(r.keys[id], clock.Real{})
	if err != nil {
		r.t.Fatal(err)
	}
	was, _ := r.authorities[id].Ring()
	if now, _ := a.Ring(); now.Generation != was.Generation || now.Phase != was.Phase || !slices.Equal(now.IDs(), was.IDs()) {
		r.t.Errorf("server %s had %+v and has %+v", id, was, now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.authorities[id] = a
}

func (r *rotating) run(id string) {
	server := r.Servers()[slices.IndexFunc(r.Servers(), func(s *testcluster.Server) bool { return s.ID == id })]
	rotation := &peers.Rotation{
		Authority: r.authorities[id], Store: server.Store(), Engine: server.Engine(), Peers: r.several.of[id], Cut: func() int { return 0 },
		Clock: quick{looks: &r.looks}, Log: slog.New(slog.DiscardHandler),
	}
	r.of[id] = rotation
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := rotation.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	r.ends[id] = sync.OnceFunc(func() { cancel(); running.Wait() })
}

func (r *rotating) operator() *peers.Operator {
	leader := r.Leader()
	return &peers.Operator{Engine: leader.Engine(), Store: leader.Store(), Peers: r.several.of[leader.ID], Clock: clock.Real{}, Rotation: r.of[leader.ID]}
}

// ask calls an operation of the operator's by its route.
func (r *rotating) ask(route string, force bool) error {
	for _, resource := range r.operator().Resources() {
		if resource.Route == route {
			in := reflect.New(resource.In).Interface()
			if f, ok := in.(*peers.RetireAuthorityInput); ok {
				f.Force = force
			}
			return resource.Read(r.t.Context(), in, func(...any) error { return nil })
		}
	}
	return errors.New("no such route: " + route)
}

func (r *rotating) host(id, status string, p *agentapi.Papers) {
	r.t.Helper()
	if _, err := r.Update(r.t.Context(), func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: id, Status: status, Papers: p})
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
}

// agreed are the authorities that the state has.
func (r *rotating) agreed() []string { return peers.AgreedIDs(r.Leader().Store().View()) }

func (r *rotating) at(phase trust.Phase) bool {
	_, now := peers.Agreed(r.Leader().Store().View())
	return now == phase
}

// same says whether all servers have one authority, that which the state names.
func (r *rotating) same() bool {
	n, _ := peers.Agreed(r.Leader().Store().View())
	var texts [][]byte
	for id, keys := range r.keys {
		if ring, _ := r.authorities[id].Ring(); ring.Generation != n {
			return false
		}
		text, err := os.ReadFile(filepath.Join(keys, "authority.pem"))
		if err != nil {
			r.t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return bytes.Equal(texts[0], texts[1]) && bytes.Equal(texts[1], texts[2])
}

func (r *rotating) ids() []string {
	ring, _ := r.authorities[r.Leader().ID].Ring()
	return ring.IDs()
}

// TestRotationOutlivesItsServers: whichever phase a server stands still in, and whether it leads or not, the others wait for it where they have to, and when
// it is back, with what it has on its disk, the exchange comes to its end on all of them.
func TestRotationOutlivesItsServers(t *testing.T) {
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			r := newRotating(t)
			still := r.Leader().ID
			if role == "follower" {
				still = r.Followers(r.Leader())[0].ID
			}
			for _, phase := range []trust.Phase{trust.Spreading, trust.Issuing, trust.Switching, trust.Forgetting} {
				before := r.ids()
				r.host("h", capacity.NodeReady, &agentapi.Papers{Issuer: before[0], Authorities: before}) // nobody is done without it
				in := func(now trust.Phase) {
					if now == phase {
						r.ends[still]()
					}
				}
				in(trust.Spreading)
				if err := r.ask("POST /operator/authority/rotation", false); err != nil {
					t.Fatal(err)
				}
				again := func() {
					r.reopen(still)
					r.run(still)
				}
				if phase == trust.Spreading {
					again()
				}
				r.Await("the new authority issues", func() bool { return r.at(trust.Issuing) })
				in(trust.Issuing)
				in(trust.Switching)
				if err := r.ask("POST /operator/authority/retirement", true); err != nil {
					t.Fatal(err)
				}
				if phase == trust.Issuing || phase == trust.Switching {
					again()
				}
				r.Await("hosts are to forget", func() bool { return r.at(trust.Forgetting) })
				in(trust.Forgetting)
				after := r.agreed()
				r.host("h", capacity.NodeReady, &agentapi.Papers{Issuer: after[0], Authorities: after})
				if phase == trust.Forgetting {
					again()
				}
				r.Await("all have the new one alone", func() bool { return r.at(trust.Steady) && r.same() })
				if now := r.ids(); len(before) != 1 || len(now) != 1 || !slices.Equal(now, after) || before[0] == now[0] {
					t.Errorf("stood still when %s: it was %v and is %v", phase, before, now)
				}
			}
		})
	}
}

// A member that does not say that it has what is agreed upon is waited for.
func TestRotationWaitsForEveryServer(t *testing.T) {
	r := newRotating(t)
	still := r.Followers(r.Leader())[0].ID
	r.ends[still]()
	if err := r.ask("POST /operator/authority/rotation", false); err != nil {
		t.Fatal(err)
	}
	other := r.Followers(r.Leader())[1].ID
	if other == still {
		other = r.Followers(r.Leader())[0].ID
	}
	r.Await("the other one has both", func() bool { ring, _ := r.authorities[other].Ring(); return len(ring.Authorities) == 2 })
	asked := r.looks.Load()
	r.Await("the leader has looked again and again", func() bool { return r.looks.Load() > asked+100 })
	if !r.at(trust.Spreading) {
		t.Fatal("it was not waited for")
	}
	if err := r.ask("POST /operator/authority/retirement", true); err == nil || !strings.Contains(err.Error(), "Not all servers") {
		t.Errorf("retired by force before all servers have the new one: %v", err)
	}
	r.run(still)
	r.Await("it goes on", func() bool { return r.at(trust.Issuing) })
}

// Hosts that have only the old authority are waited for, unless it is said otherwise; those that are lost need not forget it.
func TestRetirementWaitsForHosts(t *testing.T) {
	r := newRotating(t)
	old := r.ids()[0]
	r.host("lost", capacity.NodeDown, &agentapi.Papers{Issuer: old, Authorities: []string{old}})
	r.host("mute", capacity.NodeReady, nil)
	if err := r.ask("POST /operator/authority/rotation", false); err != nil {
		t.Fatal(err)
	}
	r.Await("the new authority issues", func() bool { return r.at(trust.Issuing) })
	both := r.ids()
	if err := r.ask("POST /operator/authority/retirement", false); err == nil || !strings.Contains(err.Error(), "2 hosts") {
		t.Errorf("with two hosts behind: %v", err)
	}
	r.host("mute", capacity.NodeReady, &agentapi.Papers{Issuer: both[1], Authorities: both})
	if err := r.ask("POST /operator/authority/retirement", false); err == nil || !strings.Contains(err.Error(), "1 hosts") {
		t.Errorf("with a lost host behind: %v", err)
	}
	if err := r.ask("POST /operator/authority/retirement", true); err != nil {
		t.Fatal(err)
	}
	r.Await("hosts are to forget", func() bool { return r.at(trust.Forgetting) })
	r.host("mute", capacity.NodeReady, &agentapi.Papers{Issuer: both[1], Authorities: both[1:]})
	r.Await("it is over", func() bool { return r.at(trust.Steady) })
}

// A restored state of before brings no retired authority back, and one of other servers does not hold these up.
func TestRotationAndRestoredStates(t *testing.T) {
	r := newRotating(t)
	turn := func() {
		t.Helper()
		if err := r.ask("POST /operator/authority/rotation", false); err != nil {
			t.Fatal(err)
		}
		r.Await("the new authority issues", func() bool { return r.at(trust.Issuing) })
	}
	turn()
	var saved bytes.Buffer
	if _, err := r.Leader().Engine().Save(t.Context(), &saved, false); err != nil {
		t.Fatal(err)
	}
	end := func() {
		t.Helper()
		if err := r.ask("POST /operator/authority/retirement", false); err != nil {
			t.Fatal(err)
		}
		r.Await("it is over", func() bool { return r.at(trust.Steady) && r.same() })
	}
	end()
	want := r.ids()
	n, _ := peers.Agreed(r.Leader().Store().View())
	if _, err := r.Leader().Engine().Restore(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	r.Await("the state has what the servers have", func() bool { now, _ := peers.Agreed(r.Leader().Store().View()); return now == n && r.same() })
	if got := r.ids(); !slices.Equal(got, want) {
		t.Errorf("the servers had %v and have %v", want, got)
	}
	elsewhere, err := trust.OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := elsewhere.Ring()
	for _, later := range []uint64{0, 7} {
		foreign.Generation = n + later
		if _, err := r.Update(t.Context(), func(tx *state.Tx) error { peers.Agree(tx, foreign); return nil }); err != nil {
			t.Fatal(err)
		}
		n = foreign.Generation + 1
		r.Await("the servers' own is in its place", func() bool { now, _ := peers.Agreed(r.Leader().Store().View()); return now == n && r.same() })
		if got := r.ids(); !slices.Equal(got, want) {
			t.Errorf("the servers had %v and have %v", want, got)
		}
	}
	turn()
	end()
}

// quick is a clock whose time is always up soon.
type quick struct {
	clock.Real
	looks *atomic.Int64
}

func (q quick) After(d time.Duration) <-chan time.Time {
	q.looks.Add(1)
	return q.Real.After(d / 50)
}

// Who has the old authority's key can call himself any server. He does not get the new one's: it is for members alone, sealed to the host key that each said was
// its own before, and what was said is not replaced.
func TestNewAuthorityIsForServersAlone(t *testing.T) {
	r := newRotating(t)
	if err := r.ask("POST /operator/authority/rotation", false); err != nil {
		t.Fatal(err)
	}
	r.Await("the new authority issues", func() bool { return r.at(trust.Issuing) })
	leader, follower := r.Leader(), r.Followers(r.Leader())[0]
	post := func(as, path string, body []byte) (int, []byte) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			r.dialling.Lock()
			defer r.dialling.Unlock()
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.several.at[peers.ProtocolRelay+leader.ID])
			if err == nil {
				r.dialled[conn.LocalAddr().String()] = as
			}
			return conn, err
		}}}
		answer, err := client.Post("http://server"+path, "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, text
	}
	newest := r.ids()[1]
	thief, err := trust.OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := thief.HostKey()
	if err != nil {
		t.Fatal(err)
	}
	ring, _ := r.authorities[leader.ID].Ring()
	ring.Generation += 100
	ring.Phase, ring.Authorities = trust.Steady, ring.Authorities[1:]
	for _, as := range []string{"thief", follower.ID} {
		code, _ := post(as, "/server-key", key)
		if as == "thief" && code == http.StatusOK {
			t.Error("who is no member has a host key")
		}
		code, text := post(as, "/authority", []byte(newest))
		if (as == "thief") == (code == http.StatusOK) || bytes.Contains(text, []byte("PRIVATE KEY")) {
			t.Errorf("as %s: %d %q", as, code, text)
		}
		if err := thief.Take(ring, text); err == nil {
			t.Errorf("as %s: he has the new authority", as)
		}
	}
}

// A platform of one process has no authority, and says so.
func TestNoAuthorityToRotate(t *testing.T) {
	o := &peers.Operator{}
	asked := 0
	for _, resource := range o.Resources() {
		if !strings.Contains(resource.Route, "/operator/authority") {
			continue
		}
		asked++
		err := resource.Read(t.Context(), reflect.New(resource.In).Interface(), func(...any) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "has no certificate authority") {
			t.Errorf("%s: %v", resource.Route, err)
		}
	}
	if asked != 3 {
		t.Errorf("%d routes", asked)
	}
}
