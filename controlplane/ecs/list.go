package ecs

import (
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// answer keeps the contract of handlers: exactly one of output and error.
func answer[T any](out *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return out, nil
}

// decode reads a member that a record keeps as JSON.
func decode[T any](s string) T { return controlplane.DecodeShape[T](s) }

func timeOf(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.AsTime())
}

// capital starts an error's text as AWS starts its messages.
func capital(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

func filter[T any](seq iter.Seq[T], keep func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for v := range seq {
			if keep(v) && !yield(v) {
				return
			}
		}
	}
}

// after leaves out what a former page held.
func after[T any](seq iter.Seq[T], last state.Key, key func(T) state.Key) iter.Seq[T] {
	return filter(seq, func(v T) bool { return key(v) > last })
}

// backwards yields seq from its end; a page starts below the last key of the one before.
func backwards[T any](seq iter.Seq[T], last state.Key, key func(T) state.Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, v := range slices.Backward(slices.Collect(seq)) {
			if (last == "" || key(v) < last) && !yield(v) {
				return
			}
		}
	}
}

// arns lists the names of records; never nil, as AWS answers [] and not nothing.
func arns[T interface{ ARN() string }](records []T) []string {
	list := make([]string, 0, len(records))
	for _, r := range records {
		list = append(list, r.ARN())
	}
	return list
}
