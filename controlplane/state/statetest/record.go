package statetest

import (
	"strings"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Records is the table of tests. An id of several parts is written with slashes.
var Records = state.NewTable("statetest.record", func(r *Record) state.Key { return RecordKey(r.GetId()) })

// RecordsByGroup finds records by the groups they are in.
var RecordsByGroup = state.NewIndex(Records, "group", func(r *Record) []state.Key {
	keys := make([]state.Key, len(r.GetGroups()))
	for i, g := range r.GetGroups() {
		keys[i] = state.K(g)
	}
	return keys
})

// Claims is a second table of records, without an index.
var Claims = state.NewTable("statetest.claim", func(r *Record) state.Key { return RecordKey(r.GetId()) })

// Schema is all tables of tests.
var Schema = state.Schema{Records, Claims}

// RecordKey is the key of the record called id.
func RecordKey(id string) state.Key { return state.K(strings.Split(id, "/")...) }
