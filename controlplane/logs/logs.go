// Package logs is the CloudWatch Logs family: groups and streams, their events, and the streams that the awslogs driver fills.
//
// Groups and streams are records. Events are in storage/stream, on the disk of the server, and so is all that follows from them: counts,
// bytes, first and last times. An event changes no record.
//
// Invariants:
//   - A stream's record comes before its data and goes before it. Data without a record belongs to nobody and is removed (retention.go).
//   - A stream's record names its group by the group's id. A group goes in one write, however many streams it has: they are not found any
//     more, and are removed in steps.
//   - A node writes only to streams whose record says that they take the output of a task of this node; that is written while the
//     task is placed there, and stays while the stream does (ship.go).
package logs

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/stream"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/logs/logs.proto

// The tables, written by the operations and, for the awslogs driver, by OpenStream.
var (
	LogGroups  = state.NewTable("logs.group", func(g *LogGroup) state.Key { return state.K(g.Account, g.Region, g.Name) })
	LogStreams = state.NewTable("logs.stream", func(s *LogStream) state.Key {
		return state.K(s.Account, s.Region, s.Group, s.Name)
	})
	// LogGroupsByID: id.
	LogGroupsByID = state.NewIndex(LogGroups, "id", func(g *LogGroup) []state.Key { return []state.Key{state.K(g.Id)} })
	// LogStreamsByData: the names of the data.
	LogStreamsByData = state.NewIndex(LogStreams, "data", func(s *LogStream) []state.Key {
		keys := []state.Key{state.K(s.Data)}
		for _, l := range s.Lanes {
			if l.Data != s.Data {
				keys = append(keys, state.K(l.Data))
			}
		}
		return keys
	})
	// LogStreamsByTask: task, container; those that take a container's output.
	LogStreamsByTask = state.NewIndex(LogStreams, "task", func(s *LogStream) []state.Key {
		if s.Task == "" {
			return nil
		}
		return []state.Key{state.K(s.Task, s.Container)}
	})
)

// Schema is every table of the family.
var Schema = state.Schema{LogGroups, LogStreams}

// Config is what the family stands on.
type Config struct {
	Store  *state.Store
	Events *stream.Store
	// Servers are the others of a cluster, and Copies on how many servers an event is before it is acknowledged; nil: this one is no
	// part of a cluster.
	Servers Servers
	Copies  int
	// TaskMay says whether a task may do something by its execution role, in the words of IAM; nil: everything.
	TaskMay func(ctx context.Context, role, taskARN, action, resource string) error
	Rand    io.Reader
	Pages   *api.Pages
	Clock   clock.Clock
	Log     *slog.Logger
}

// Family has the handlers as methods. Between calls it keeps who follows events (livetail.go) and, in a cluster, what it appends to (lane.go).
type Family struct {
	Config
	writers writers
	tails   tails
}

// New returns the family.
func New(c Config) *Family { return &Family{Config: c} }

func (f *Family) update(ctx context.Context, fn func(tx *state.Tx, scope controlplane.Scope) error) error {
	c := api.CallFrom(ctx)
	_, err := f.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, controlplane.Scope{Account: c.Account, Region: c.Region}) })
	return err
}

func (f *Family) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	c := api.CallFrom(ctx)
	v, err := f.Store.Linearizable(ctx)
	return v, controlplane.Scope{Account: c.Account, Region: c.Region}, err
}

func invalid(format string, args ...any) error {
	return awserr.New("InvalidParameterException", format, args...)
}

func noGroup() error {
	return awserr.New("ResourceNotFoundException", "The specified log group does not exist.")
}
func noStream() error {
	return awserr.New("ResourceNotFoundException", "The specified log stream does not exist.")
}

// ARN is the group's, as tags and policies name it; groups are shown with ":*" behind it too.
func (g *LogGroup) ARN() string {
	return groupARN(controlplane.Scope{Account: g.Account, Region: g.Region}, g.Name)
}

func groupARN(scope controlplane.Scope, name string) string {
	return arn.New("logs", scope.Region, scope.Account, "log-group:"+name).String()
}

// group finds a group by its name.
func group(r state.Reader, scope controlplane.Scope, name *string) (*LogGroup, error) {
	if g, ok := LogGroups.Get(r, scope.Key(aws.ToString(name))); ok {
		return g, nil
	}
	return nil, noGroup()
}

// groupOf finds a group by its name or by an identifier, which is a name or an ARN, of which exactly one is given.
func groupOf(r state.Reader, scope controlplane.Scope, name, identifier *string) (*LogGroup, error) {
	switch {
	case name != nil && identifier != nil:
		return nil, invalid("LogGroup name and LogGroup ARN are mutually exclusive parameters.")
	case name == nil && identifier == nil:
		return nil, invalid("Exactly one of logGroupName and logGroupIdentifier must be given.")
	case name != nil:
		return group(r, scope, name)
	}
	return identified(r, scope, *identifier)
}

// identified finds a group by its name or its ARN, with or without ":*". An ARN of another account or region names nothing here.
func identified(r state.Reader, scope controlplane.Scope, identifier string) (*LogGroup, error) {
	if arn.Is(identifier) {
		a, err := arn.Parse(identifier)
		if err != nil || a.Service != "logs" || a.Type() != "log-group" {
			return nil, invalid("The specified ARN '%s' is not the ARN of a log group.", identifier)
		}
		if a.Account != scope.Account || a.Region != scope.Region {
			return nil, noGroup()
		}
		identifier = a.Rest()
		if n := len(identifier); n > 2 && identifier[n-2:] == ":*" {
			identifier = identifier[:n-2]
		}
	}
	return group(r, scope, &identifier)
}

// streams is the prefix of the group's streams.
func (g *LogGroup) streams() state.Key { return state.K(g.Account, g.Region, g.Id) }

func (g *LogGroup) key(name string) state.Key { return state.K(g.Account, g.Region, g.Id, name) }

// streamOf finds a stream of the group.
func streamOf(r state.Reader, g *LogGroup, name *string) (*LogStream, error) {
	if s, ok := LogStreams.Get(r, g.key(aws.ToString(name))); ok {
		return s, nil
	}
	return nil, noStream()
}

func millis(t time.Time) int64 { return t.UnixMilli() }
