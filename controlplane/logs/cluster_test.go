package logs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// servers are the families of several servers in this process.
type servers struct {
	*testcluster.Cluster
	t   *testing.T
	dir map[string]string // of the streams

	mu      sync.Mutex
	at      map[string]*Family
	members []string
	down    map[string]bool // out of reach, whether it runs or not
	deaf    map[string]bool // takes copies, and does not say so
	hold    chan struct{}   // not nil: copies wait for it
	held    chan struct{}   // and say so here
	stop    map[string]context.CancelFunc
	stopped map[string]chan struct{}
}

func newServers(t *testing.T, n int) *servers {
	c := &servers{t: t, Cluster: testcluster.New(t, testcluster.Config{Servers: n, Schema: append(append(state.Schema{}, controlplane.Schema...), Schema...), Configure: testcluster.Patient}),
		dir: map[string]string{}, at: map[string]*Family{}, down: map[string]bool{}, deaf: map[string]bool{},
		stop: map[string]context.CancelFunc{}, stopped: map[string]chan struct{}{}}
	for _, s := range c.Servers() {
		c.members = append(c.members, s.ID)
		c.dir[s.ID] = t.TempDir()
		c.open(s)
	}
	t.Cleanup(func() {
		for _, s := range c.Servers() {
			c.closeStreams(s.ID)
		}
	})
	return c
}

// open gives a server that runs its family.
func (c *servers) open(s *testcluster.Server) {
	events, err := stream.Open(c.dir[s.ID], stream.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	sealer, err := seal.New(make([]byte, seal.KeySize), "pages")
	if err != nil {
		c.t.Fatal(err)
	}
	f := New(Config{Store: s.Store(), Events: events, Servers: &link{c, s.ID}, Copies: 2, Rand: rand.Reader, Pages: api.NewPages(sealer), Clock: clock.Real{},
		Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { f.mirror(ctx); close(stopped) }()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[s.ID], c.down[s.ID], c.stop[s.ID], c.stopped[s.ID] = f, false, cancel, stopped
}

func (c *servers) closeStreams(id string) {
	c.mu.Lock()
	f := c.at[id]
	stop, stopped := c.stop[id], c.stopped[id]
	delete(c.at, id)
	c.down[id] = true
	c.mu.Unlock()
	if f != nil {
		stop()
		<-stopped
		f.Events.Close()
	}
}

// kill ends a server as it stands.
func (c *servers) kill(s *testcluster.Server) {
	s.Kill()
	c.closeStreams(s.ID)
}

func (c *servers) restart(s *testcluster.Server) {
	s.Start()
	c.open(s)
}

func (c *servers) family(id string) *Family {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[id]
}

var errDown = errors.New("out of reach")

func (c *servers) reach(from, to string) (*Family, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.at[to]; f != nil && !c.down[to] && !c.down[from] {
		return f, nil
	}
	return nil, errDown
}

// link is what one server has of the others.
type link struct {
	c  *servers
	id string
}

func (l *link) Self() string { return l.id }

func (l *link) Others(context.Context) (list []string, err error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	for _, id := range l.c.members {
		if id != l.id {
			list = append(list, id)
		}
	}
	return list, nil
}

func (l *link) Copy(ctx context.Context, server, data string, batch []byte) error {
	l.c.mu.Lock()
	hold, deaf := l.c.hold, l.c.deaf[server]
	l.c.mu.Unlock()
	if hold != nil {
		l.c.held <- struct{}{}
		<-hold
	}
	f, err := l.c.reach(l.id, server)
	if err == nil {
		_, err = f.Events.AppendCopy(ctx, data, batch, false)
	}
	if err == nil && deaf {
		err = errDown
	}
	return err
}

func (l *link) Stat(_ context.Context, server string, data []string) (infos []stream.Info, err error) {
	f, err := l.c.reach(l.id, server)
	for _, d := range data {
		var i stream.Info
		if err == nil {
			i, err = f.Events.Stat(d)
		}
		infos = append(infos, i)
	}
	return infos, err
}

func (l *link) Fetch(_ context.Context, server, data string, from uint64, take func([]byte) error) error {
	f, err := l.c.reach(l.id, server)
	if err != nil {
		return err
	}
	for b, err := range f.Events.Copy(data, from) {
		if err == nil {
			err = take(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *link) Ship(ctx context.Context, b *agentapi.ShipBatch) (uint64, error) {
	f, err := l.c.reach(l.id, l.c.family(l.id).Store.Leadership().Leader)
	if err != nil {
		return 0, status.Error(codes.Unavailable, err.Error())
	}
	return f.Take(ctx, b)
}

func (c *servers) ctx(operation string) context.Context {
	return api.WithCall(c.t.Context(), &api.Call{Identity: api.System("000000000000"), Region: "us-east-1", Service: "cloudwatchlogs", Operation: operation, Time: time.Now()})
}

// at has the leader do something that has to work.
func leaderDoes[I, O any](c *servers, f func(*Family) func(context.Context, *I) (*O, error), in *I) *O {
	c.t.Helper()
	out, err := f(c.family(c.Leader().ID))(c.ctx("X"), in)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *servers) putEvents() func(*Family) func(context.Context, *cwl.PutLogEventsInput) (*cwl.PutLogEventsOutput, error) {
	return func(f *Family) func(context.Context, *cwl.PutLogEventsInput) (*cwl.PutLogEventsOutput, error) {
		return f.putLogEvents
	}
}

func (c *servers) makeStream(group, name string) {
	c.t.Helper()
	leaderDoes(c, func(f *Family) func(context.Context, *cwl.CreateLogGroupInput) (*cwl.CreateLogGroupOutput, error) {
		return f.createLogGroup
	}, &cwl.CreateLogGroupInput{LogGroupName: &group})
	leaderDoes(c, func(f *Family) func(context.Context, *cwl.CreateLogStreamInput) (*cwl.CreateLogStreamOutput, error) {
		return f.createLogStream
	}, &cwl.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &name})
}

func putOf(text string) *cwl.PutLogEventsInput {
	return &cwl.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"),
		LogEvents: []types.InputLogEvent{{Timestamp: aws.Int64(time.Now().UnixMilli()), Message: &text}}}
}

func (c *servers) put(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		leaderDoes(c, c.putEvents(), putOf(text))
	}
}

// all is what the leader answers for the stream, page by page; ids are the events' by FilterLogEvents.
func (c *servers) all() (texts, ids []string) {
	c.t.Helper()
	var token *string
	for {
		out := leaderDoes(c, func(f *Family) func(context.Context, *cwl.GetLogEventsInput) (*cwl.GetLogEventsOutput, error) {
			return f.getLogEvents
		},
			&cwl.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), NextToken: token, StartFromHead: aws.Bool(true), Limit: aws.Int32(2)})
		if len(out.Events) == 0 {
			break
		}
		texts, token = append(texts, messages(out.Events)...), out.NextForwardToken
	}
	out := leaderDoes(c, func(f *Family) func(context.Context, *cwl.FilterLogEventsInput) (*cwl.FilterLogEventsOutput, error) {
		return f.filterLogEvents
	}, &cwl.FilterLogEventsInput{LogGroupName: aws.String("g")})
	for _, e := range out.Events {
		ids = append(ids, *e.EventId)
	}
	if len(ids) != len(texts) {
		c.t.Errorf("%d events by GetLogEvents, %d by FilterLogEvents", len(texts), len(ids))
	}
	return texts, ids
}

func (c *servers) has(want ...string) []string {
	c.t.Helper()
	texts, ids := c.all()
	if !slices.Equal(texts, want) {
		c.t.Errorf("the stream has %q, want %q", texts, want)
	}
	return ids
}

// lanes are the stream's, as the leader has them.
func (c *servers) lanes() []*LogLane {
	for s := range LogStreams.Scan(c.Leader().Store().View(), state.K()) {
		return s.Lanes
	}
	return nil
}

// everywhere waits until every running server has all closed lanes.
func (c *servers) everywhere() {
	c.t.Helper()
	for _, s := range c.Servers() {
		if s.Engine() == nil {
			continue
		}
		c.Await("server "+s.ID+" has a copy", func() bool {
			for _, l := range c.lanes() {
				if i, err := c.family(s.ID).Events.Stat(l.Data); l.Closed && (err != nil || i.Next < l.End) {
					return false
				}
			}
			return true
		})
	}
}

// TestEventsOutliveTheServerThatWroteThem, are read from whoever leads, keep their ids, and come to a server that was away.
func TestEventsOutliveTheServerThatWroteThem(t *testing.T) {
	c := newServers(t, 3)
	c.makeStream("g", "s")
	c.put("one", "two")
	first := c.Leader()
	before := c.has("one", "two")
	if l := c.lanes(); len(l) != 1 || len(l[0].Holders) != 2 || l[0].Holders[0] != first.ID {
		t.Fatalf("lanes %v", l)
	}
	c.kill(first)
	after := c.has("one", "two")
	if !slices.Equal(before, after) {
		t.Errorf("ids %v, and then %v", before, after)
	}
	c.put("three")
	c.has("one", "two", "three")
	c.everywhere() // both that are left have all that is closed

	c.restart(first)
	c.everywhere()
	second := c.Leader()
	c.put("four")
	c.kill(second)
	ids := c.has("one", "two", "three", "four")
	if !slices.Equal(ids[:2], before) {
		t.Errorf("ids %v became %v", before, ids)
	}
	c.put("five")
	c.has("one", "two", "three", "four", "five")
	end := uint64(0)
	for _, l := range c.lanes() {
		if l.Base != end {
			t.Errorf("a lane at %d follows one that ends at %d", l.Base, end)
		}
		end = l.Base + l.End
	}
	out := leaderDoes(c, func(f *Family) func(context.Context, *cwl.DescribeLogGroupsInput) (*cwl.DescribeLogGroupsOutput, error) {
		return f.describeLogGroups
	}, &cwl.DescribeLogGroupsInput{})
	if n := *out.LogGroups[0].StoredBytes; n != int64(len("onetwothreefourfive")) {
		t.Errorf("%d bytes are stored", n)
	}
}

// TestLostHolder: a server that takes no copy is replaced by another at once; with none left nothing is acknowledged.
func TestLostHolder(t *testing.T) {
	c := newServers(t, 3)
	c.makeStream("g", "s")
	c.put("one")
	leader := c.Leader()
	lost := c.lanes()[0].Holders[1]
	c.mu.Lock()
	c.deaf[lost] = true // it has the copy that is not acknowledged
	c.mu.Unlock()
	c.put("two")
	l := c.lanes()
	if len(l) != 2 || l[0].End != 1 || slices.Contains(l[1].Holders, lost) {
		t.Fatalf("lanes %v", l)
	}
	if i, err := c.family(lost).Events.Stat(l[0].Data); err != nil || i.Next != 2 {
		t.Fatalf("what was not acknowledged: %+v, %v", i, err)
	}
	c.has("one", "two") // and not what is behind the end
	c.everywhere()
	c.mu.Lock()
	for _, s := range c.Servers() {
		c.down[s.ID] = s != leader
	}
	c.mu.Unlock()
	if _, err := c.family(leader.ID).putLogEvents(c.ctx("X"), putOf("three")); err == nil || !strings.Contains(err.Error(), "ServiceUnavailable") {
		t.Errorf("without another server: %v", err)
	}
	c.mu.Lock()
	clear(c.down)
	clear(c.deaf)
	c.mu.Unlock()
	c.put("four")
	texts, _ := c.all()
	if got := slices.DeleteFunc(texts, func(s string) bool { return s == "three" }); !slices.Equal(got, []string{"one", "two", "four"}) {
		t.Errorf("the stream has %q", got)
	}
}

// TestIdleLaneLosesItsHolder: what nobody appends to any more is copied all the same.
func TestIdleLaneLosesItsHolder(t *testing.T) {
	c := newServers(t, 3)
	c.makeStream("g", "s")
	c.put("one")
	lane := c.lanes()[0]
	for _, s := range c.Servers() {
		if s.ID == lane.Holders[1] {
			c.kill(s)
		}
	}
	if err := c.family(c.Leader().ID).tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := c.lanes(); len(l) != 1 || !l[0].Closed {
		t.Fatalf("lanes %v", l)
	}
	c.everywhere()
	c.has("one")
	c.put("two")
	c.has("one", "two")
}

// TestDeposedWriterIsNotAcknowledged: a leader that is cut off, with a copy under way, says so; what it had does not come twice.
func TestDeposedWriterIsNotAcknowledged(t *testing.T) {
	c := newServers(t, 3)
	c.placed()
	first := c.Leader()
	old := c.family(first.ID)
	open := &agentapi.ShipBatch{NodeId: "n1", TaskId: task, Container: "app"}
	batch := func(mark uint64) *agentapi.ShipBatch {
		return &agentapi.ShipBatch{NodeId: "n1", TaskId: task, Container: "app", Mark: mark,
			Events: []*agentapi.ShipEvent{{Text: fmt.Sprint("line ", mark), TimeMillis: int64(mark)}}}
	}
	if _, err := old.Take(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Take(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.hold, c.held = make(chan struct{}), make(chan struct{}, 1)
	hold := c.hold
	c.mu.Unlock()
	result := make(chan error, 1)
	go func() {
		_, err := old.Take(context.WithoutCancel(t.Context()), batch(2))
		result <- err
	}()
	<-c.held
	first.Isolate()
	c.mu.Lock()
	c.hold = nil
	c.mu.Unlock()
	second := c.Leader(first)
	now := c.family(second.ID)
	if mark, err := now.Take(t.Context(), open); err != nil || mark != 1 {
		t.Fatalf("mark %d, %v", mark, err)
	}
	close(hold) // now the copy comes, to a lane that is closed
	if err := <-result; status.Code(err) != codes.Unavailable {
		t.Errorf("the deposed leader answered %v", err)
	}
	for _, mark := range []uint64{2, 2, 3} {
		if _, err := now.Take(t.Context(), batch(mark)); err != nil {
			t.Fatal(err)
		}
	}
	c.Network.HealAll()
	c.Await("it follows", func() bool { return first.Store().Leadership().Leader == second.ID })
	// Any server passes on what agents bring.
	appendBatch, mark, err := old.OpenStream(t.Context(), "n1", task, "app")
	if err != nil || mark != 3 {
		t.Fatalf("mark %d, %v", mark, err)
	}
	for range 2 {
		if err := appendBatch(t.Context(), batch(4).Events, 4); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := old.OpenStream(t.Context(), "n2", task, "app"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another node's: %v", err)
	}
	out := leaderDoes(c, func(f *Family) func(context.Context, *cwl.FilterLogEventsInput) (*cwl.FilterLogEventsOutput, error) {
		return f.filterLogEvents
	}, &cwl.FilterLogEventsInput{LogGroupName: aws.String("g")})
	var texts []string
	for _, e := range out.Events {
		texts = append(texts, *e.Message)
	}
	if want := []string{"line 1", "line 2", "line 3", "line 4"}; !slices.Equal(texts, want) {
		t.Errorf("events %q, want %q", texts, want)
	}
}

// placed puts a task with the driver on node n1, whose group there is.
func (c *servers) placed() {
	c.t.Helper()
	b := &bench{t: c.t, Family: c.family(c.Leader().ID), clk: clock.NewFake(time.Now())}
	b.placed(map[string]string{"awslogs-region": "us-east-1", "awslogs-group": "g", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"})
}

// TestStreamsFromBeforeTheCluster: events that one server kept alone are found with it, whoever leads.
func TestStreamsFromBeforeTheCluster(t *testing.T) {
	c := newServers(t, 3)
	c.makeStream("g", "s")
	leader := c.Leader()
	had := c.family(c.Followers(leader)[0].ID)
	var s *LogStream
	if _, err := leader.Store().Update(t.Context(), func(tx *state.Tx) error {
		for s = range LogStreams.Scan(tx, state.K()) {
		}
		s.Laned = false
		LogStreams.Put(tx, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := had.Events.Append(t.Context(), s.Data, stream.Batch{Mark: 7, Records: []stream.Record{{Time: 1, Data: []byte("old")}}}); err != nil {
		t.Fatal(err)
	}
	c.has("old")
	c.put("new")
	c.has("old", "new")
	c.everywhere()
	if mark, err := c.family(leader.ID).mark(t.Context(), s); err != nil || mark != 7 {
		t.Errorf("mark %d, %v", mark, err)
	}
}

// TestNothingIsLostOrDoubled: batches are shipped, each until it is acknowledged, while servers die, come back and are cut off.
func TestNothingIsLostOrDoubled(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	c := newServers(t, 3)
	c.placed()
	const batches = 100
	shipped := make(chan error, 1)
	var progress sync.Map
	go func() {
		defer close(shipped)
		shipper := mathrand.New(mathrand.NewPCG(seed, 1))
		opened := false
		for mark := uint64(1); mark <= batches; {
			id := fmt.Sprint("s", shipper.IntN(3))
			f := c.family(id)
			if f == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			b := &agentapi.ShipBatch{NodeId: "n1", TaskId: task, Container: "app"}
			if opened {
				b.Mark, b.Events = mark, []*agentapi.ShipEvent{{Text: fmt.Sprint(mark), TimeMillis: int64(mark)}}
			}
			_, err := f.ship(ctx, b)
			cancel()
			switch {
			case err == nil && opened:
				progress.Store("mark", mark)
				mark++
			case err == nil:
				opened = true
			}
		}
	}()
	reached := func(n uint64) func() bool {
		return func() bool { m, ok := progress.Load("mark"); return ok && m.(uint64) >= n }
	}
	for n := uint64(20); n < batches; n += 20 {
		c.Await(fmt.Sprint("batch ", n), reached(n))
		s := c.Servers()[r.IntN(3)]
		if r.IntN(3) == 0 {
			s = c.Leader()
		}
		if r.IntN(2) == 0 {
			c.kill(s)
			c.Await("more came meanwhile", reached(n+5))
			c.restart(s)
		} else {
			s.Isolate()
			c.Await("more came meanwhile", reached(n+5))
			c.Network.HealAll()
		}
		c.Await("it has caught up", func() bool { return s.Store().Leadership().Leader != "" })
		c.everywhere()
	}
	c.Await("all were shipped", reached(batches))
	<-shipped
	out := leaderDoes(c, func(f *Family) func(context.Context, *cwl.FilterLogEventsInput) (*cwl.FilterLogEventsOutput, error) {
		return f.filterLogEvents
	}, &cwl.FilterLogEventsInput{LogGroupName: aws.String("g")})
	for i, e := range out.Events {
		if *e.Message != fmt.Sprint(i+1) {
			t.Fatalf("event %d is %s", i+1, *e.Message)
		}
	}
	if len(out.Events) != batches {
		t.Errorf("%d events of %d", len(out.Events), batches)
	}
}
