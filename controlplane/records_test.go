package controlplane

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var here = Scope{"000000000000", "us-east-1"}

func update(t *testing.T, s *state.Store, fn func(tx *state.Tx)) {
	t.Helper()
	if _, err := s.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestShapeRoundTrip(t *testing.T) {
	def := types.ContainerDefinition{
		Name: aws.String("web"), Cpu: 10, Essential: aws.Bool(false), Memory: aws.Int32(0), Command: []string{},
		PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(80), Protocol: types.TransportProtocolTcp}},
		DockerLabels: map[string]string{"B": "2", "A": "1"},
	}
	text := EncodeShape(def)
	want := `{"command":[],"cpu":10,"dockerLabels":{"A":"1","B":"2"},"essential":false,"memory":0,"name":"web","portMappings":[{"containerPort":80,"protocol":"tcp"}]}`
	if text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if diff := cmp.Diff(def, DecodeShape[types.ContainerDefinition](text), cmpopts.IgnoreUnexported(types.ContainerDefinition{}, types.PortMapping{})); diff != "" {
		t.Error(diff)
	}
	if got := EncodeShape([]types.LoadBalancer(nil)); got != "" {
		t.Errorf("nothing is %q", got)
	}
}

func TestTagSet(t *testing.T) {
	codes := TagCodes{TooMany: "Many", Duplicate: "Twice", Invalid: "Bad"}
	many := make([]Tag, 51)
	for i := range many {
		many[i].Key = fmt.Sprint(i)
	}
	for _, c := range []struct {
		name string
		tags []Tag
		code string
	}{
		{"ok", []Tag{{"a", ""}, {strings.Repeat("é", 128), strings.Repeat("é", 256)}}, ""},
		{"fifty", many[:50], ""},
		{"fifty-one", many, "Many"},
		{"twice", []Tag{{"a", "1"}, {"a", "2"}}, "Twice"},
		{"no key", []Tag{{"", "1"}}, "Bad"},
		{"long key", []Tag{{strings.Repeat("k", 129), ""}}, "Bad"},
		{"long value", []Tag{{"k", strings.Repeat("v", 257)}}, "Bad"},
		{"reserved", []Tag{{"AWS:x", ""}}, "Bad"},
	} {
		set, err := TagSet(c.tags, codes)
		if c.code == "" && (err != nil || len(set) != len(c.tags)) || c.code != "" && !awserr.Is(err, c.code) {
			t.Errorf("%s: got %d tags, error %v", c.name, len(set), err)
		}
	}
}

func TestTagsOfResource(t *testing.T) {
	s := statetest.New(t, Schema...)
	codes := TagCodes{TooMany: "Many"}
	const name = "arn:aws:ecs:us-east-1:000000000000:cluster/a"
	update(t, s, func(tx *state.Tx) {
		PutTags(tx, here, name, map[string]string{"a": "1", "b": "2"})
		if err := AddTags(tx, here, name, map[string]string{"b": "3", "c": "4"}, codes); err != nil {
			t.Error(err)
		}
		RemoveTags(tx, here, name, []string{"a", "absent"})
	})
	if diff := cmp.Diff([]Tag{{"b", "3"}, {"c", "4"}}, SortedTags(TagsOf(s.View(), here, name))); diff != "" {
		t.Error(diff)
	}
	if got := TagsOf(s.View(), Scope{"111111111111", "us-east-1"}, name); got != nil {
		t.Errorf("another account sees %v", got)
	}
	update(t, s, func(tx *state.Tx) { RemoveTags(tx, here, name, []string{"b", "c"}) })
	if _, ok := ResourceTags.Get(s.View(), here.Key(name)); ok {
		t.Error("an empty set is kept")
	}
}

func TestClientToken(t *testing.T) {
	s := statetest.New(t, Schema...)
	now := time.Unix(1_700_000_000, 0)
	request := func(count int32) Request {
		return Request{here, "ecs:RunTask", "token", HashRequest(&ecs.RunTaskInput{Count: &count})}
	}
	update(t, s, func(tx *state.Tx) {
		if _, seen, _ := request(1).Earlier(tx, now); seen {
			t.Error("seen before it was there")
		}
		request(1).Remember(tx, now, "task")
	})
	for _, c := range []struct {
		name       string
		request    Request
		at         time.Duration
		seen, same bool
	}{
		{"again", request(1), time.Hour, true, true},
		{"another request", request(2), time.Hour, true, false},
		{"a day later", request(1), 24 * time.Hour, false, false},
		{"another account", Request{Scope{"111111111111", "us-east-1"}, "ecs:RunTask", "token", request(1).Hash}, 0, false, false},
		{"another operation", Request{here, "ecs:CreateService", "token", request(1).Hash}, 0, false, false},
		{"no token", Request{here, "ecs:RunTask", "", request(1).Hash}, 0, false, false},
	} {
		update(t, s, func(tx *state.Tx) {
			result, seen, same := c.request.Earlier(tx, now.Add(c.at))
			if seen != c.seen || same != c.same || seen && result[0] != "task" {
				t.Errorf("%s: got %v, seen %v, same %v", c.name, result, seen, same)
			}
		})
	}
}

// TestServiceEventRing: a service shows its last hundred events, also those of a build that kept them in one record, and no more are kept for long.
func TestServiceEventRing(t *testing.T) {
	s := statetest.New(t, Schema...)
	svc := &Service{Account: here.Account, Region: here.Region, Cluster: "c", Name: "s"}
	other := &Service{Account: here.Account, Region: here.Region, Cluster: "c", Name: "s2"}
	key := here.Key("c", "s")
	update(t, s, func(tx *state.Tx) {
		AppendServiceEvent(tx, other, "of another service", time.Unix(0, 0), rand.Reader)
		before := &ServiceEvents{Account: here.Account, Region: here.Region, Cluster: "c", Service: "s"}
		for i := range 100 {
			before.Events = append(before.Events, &ServiceEvent{Message: fmt.Sprint("before ", i), Created: timestamppb.New(time.Unix(int64(-i), 0))})
		}
		ServiceEventRings.Put(tx, before)
	})
	for i := range 205 {
		update(t, s, func(tx *state.Tx) {
			AppendServiceEvent(tx, svc, fmt.Sprint(i), time.Unix(int64(i), 0), rand.Reader)
			AppendServiceEvent(tx, svc, fmt.Sprint(i), time.Unix(int64(i), 1), rand.Reader) // said already
		})
		events := ServiceEventsOf(s.View(), key)
		if len(events) != 100 {
			t.Fatalf("%d events after %d", len(events), i+1)
		}
		for n, e := range events {
			want := fmt.Sprint(i - n)
			if n > i {
				want = fmt.Sprint("before ", n-i-1)
			}
			if e.Message != want {
				t.Fatalf("after %d, event %d is %q, not %q", i+1, n, e.Message, want)
			}
		}
		if n := len(slices.Collect(ServiceEventRings.Scan(s.View(), key))); n > 12 {
			t.Fatalf("%d pages", n)
		}
	}
	if _, ok := ServiceEventRings.Get(s.View(), key); ok {
		t.Error("the record of before is still there")
	}
	update(t, s, func(tx *state.Tx) { DeleteServiceEvents(tx, key) })
	if n := len(slices.Collect(ServiceEventRings.Scan(s.View(), state.K()))); n != 1 {
		t.Errorf("%d pages are left, not that of the other service", n)
	}
}
