package logs

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/logs/pattern"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// Limits of Live Tail: the operation's documentation and the service's quotas. The bytes of an update keep it within what clients take as
// one message; the sessions of a server bound its memory, whatever accounts there are.
const (
	maxSession        = 3 * time.Hour
	maxUpdateEvents   = 500
	maxUpdateBytes    = 1 << 20
	maxSessions       = 15 // of an account in a region
	maxServerSessions = 100
	liveTailEvery     = time.Second
)

// tails are the Live Tail sessions that this server has. Appends are offered to them.
type tails struct {
	mu   sync.RWMutex
	open map[*tail]struct{}
}

// tail is one session: what it wants, and what has come since its last update.
type tail struct {
	account, region string
	groups          map[string]string // ARNs by id
	names, prefixes []string          // of streams; neither: all
	match           *pattern.Pattern

	mu     sync.Mutex
	rand   *rand.Rand
	events []types.LiveTailSessionLogEvent // a fair sample of what matched
	bytes  int
	seen   int // how many matched
}

// startLiveTail implements logs:StartLiveTail. Whoever leads has the session, since every append is his; a session does not outlive the
// term it began in.
func (f *Family) startLiveTail(ctx context.Context, in *cwl.StartLiveTailInput, emit func(types.StartLiveTailResponseStream) error) error {
	term := uint64(0)
	if f.Servers != nil {
		var err error
		if term, err = f.leads(); err != nil {
			return err
		}
	}
	t, start, err := f.newTail(ctx, in)
	if err != nil {
		return err
	}
	if err := f.tails.add(t); err != nil {
		return err
	}
	defer f.tails.remove(t)
	if err := emit(&types.StartLiveTailResponseStreamMemberSessionStart{Value: *start}); err != nil {
		return err
	}
	timeout := f.Clock.After(maxSession)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timeout:
			return awserr.New("SessionTimeoutException", "The session has timed out after %d hours.", maxSession/time.Hour)
		case <-f.Clock.After(liveTailEvery):
		}
		if f.Servers != nil {
			if now, err := f.leads(); err != nil || now != term {
				return awserr.New("SessionStreamingException", "Another server takes the log events now. Please start the session again.")
			}
		}
		if err := emit(&types.StartLiveTailResponseStreamMemberSessionUpdate{Value: t.take()}); err != nil {
			return err
		}
	}
}

// newTail holds the input against the constraints.
func (f *Family) newTail(ctx context.Context, in *cwl.StartLiveTailInput) (*tail, *types.LiveTailSessionStart, error) {
	one := len(in.LogGroupIdentifiers) == 1
	switch {
	case len(in.LogStreamNames) > 0 && len(in.LogStreamNamePrefixes) > 0:
		return nil, nil, invalid("'logStreamNames' and 'logStreamNamePrefixes' can not both be given.")
	case len(in.LogStreamNames) > 0 && !one:
		return nil, nil, invalid("'logStreamNames' can be given only with one log group in 'logGroupIdentifiers'.")
	case len(in.LogStreamNamePrefixes) > 0 && !one:
		return nil, nil, invalid("'logStreamNamePrefixes' can be given only with one log group in 'logGroupIdentifiers'.")
	}
	match, err := pattern.Compile(aws.ToString(in.LogEventFilterPattern))
	if err != nil {
		return nil, nil, invalid("Invalid filter pattern: %v", err)
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, nil, err
	}
	t := &tail{account: scope.Account, region: scope.Region, groups: map[string]string{}, names: in.LogStreamNames, prefixes: in.LogStreamNamePrefixes, match: match}
	if t.rand, err = seeded(f.Rand); err != nil {
		return nil, nil, err
	}
	for _, identifier := range in.LogGroupIdentifiers {
		if !arn.Is(identifier) || strings.HasSuffix(identifier, "*") {
			return nil, nil, invalid("'%s' in 'logGroupIdentifiers' is not the ARN of a log group, without an asterisk at its end.", identifier)
		}
		g, err := identified(v, scope, identifier)
		if err != nil {
			return nil, nil, err
		}
		t.groups[g.Id] = g.ARN()
	}
	return t, &types.LiveTailSessionStart{
		RequestId: aws.String(api.CallFrom(ctx).RequestID), SessionId: aws.String(id.UUID(f.Rand)), LogGroupIdentifiers: in.LogGroupIdentifiers,
		LogStreamNames: in.LogStreamNames, LogStreamNamePrefixes: in.LogStreamNamePrefixes, LogEventFilterPattern: in.LogEventFilterPattern,
	}, nil
}

// seeded is a generator for choices that no one must foresee but that need not be good enough for keys.
func seeded(r io.Reader) (*rand.Rand, error) {
	var seed [16]byte
	if _, err := io.ReadFull(r, seed[:]); err != nil {
		return nil, fmt.Errorf("seed a sample: %w", err)
	}
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:]))), nil
}

func (s *tails) add(t *tail) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for o := range s.open {
		if o.account == t.account && o.region == t.region {
			same++
		}
	}
	switch {
	case same >= maxSessions:
		return awserr.New("LimitExceededException", "There are %d Live Tail sessions already, as many as an account may have in a region.", same)
	case len(s.open) >= maxServerSessions:
		return awserr.New("LimitExceededException", "This server has %d Live Tail sessions already, as many as it takes.", len(s.open))
	}
	if s.open == nil {
		s.open = map[*tail]struct{}{}
	}
	s.open[t] = struct{}{}
	return nil
}

func (s *tails) remove(t *tail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t)
}

// offer shows the sessions a batch that was appended to the stream.
func (s *tails) offer(from *LogStream, b *stream.Batch) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for t := range s.open {
		if group, ok := t.groups[from.Group]; ok && t.wants(from.Name) {
			t.offer(group, from.Name, b)
		}
	}
}

func (t *tail) wants(name string) bool {
	return len(t.names)+len(t.prefixes) == 0 || slices.Contains(t.names, name) ||
		slices.ContainsFunc(t.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// offer keeps what matches while there is room for it, and then has it take the place of another one as often as is fair. So a session
// whose client is slow has one update at most waiting for it.
func (t *tail) offer(group, name string, b *stream.Batch) {
	for _, r := range b.Records {
		message := string(r.Data)
		if !t.match.Match(message) {
			continue
		}
		e := types.LiveTailSessionLogEvent{LogGroupIdentifier: &group, LogStreamName: &name, Message: &message, Timestamp: aws.Int64(r.Time),
			IngestionTime: aws.Int64(b.Ingested)}
		t.mu.Lock()
		t.seen++
		if len(t.events) < maxUpdateEvents && t.bytes+len(message) <= maxUpdateBytes {
			t.events = append(t.events, e)
			t.bytes += len(message)
		} else if i := t.rand.IntN(t.seen); i < len(t.events) {
			if bytes := t.bytes - len(*t.events[i].Message) + len(message); bytes <= maxUpdateBytes {
				t.events[i], t.bytes = e, bytes
			}
		}
		t.mu.Unlock()
	}
}

// take is the next update, in the order of the events' times.
func (t *tail) take() types.LiveTailSessionUpdate {
	t.mu.Lock()
	events, seen := t.events, t.seen
	t.events, t.bytes, t.seen = nil, 0, 0
	t.mu.Unlock()
	slices.SortStableFunc(events, func(a, b types.LiveTailSessionLogEvent) int { return cmp.Compare(*a.Timestamp, *b.Timestamp) })
	if events == nil {
		events = []types.LiveTailSessionLogEvent{}
	}
	return types.LiveTailSessionUpdate{SessionMetadata: &types.LiveTailSessionMetadata{Sampled: seen > len(events)}, SessionResults: events}
}

// liveTailGroups are the IAM resources of a session.
func liveTailGroups(_ *api.Call, in *cwl.StartLiveTailInput) []string {
	var list []string
	for _, identifier := range in.LogGroupIdentifiers {
		list = append(list, strings.TrimSuffix(identifier, ":*")+streamPart)
	}
	return list
}
