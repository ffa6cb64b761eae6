package ecs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// errorCase is one entry of testdata/errors: what a request is answered, and where AWS is seen to answer so.
type errorCase struct {
	Operation string
	Request   json.RawMessage
	Code      string
	Status    int
	Message   string
	// Source is a page or an issue that shows AWS's answer; "neargate" where AWS has none, because AWS does what we refuse, or
	// where no record of AWS's words was found (Note says which).
	Source string
	Note   string
}

func TestErrors(t *testing.T) {
	p := world(t)
	operations := map[string]int{}
	table := p.Operations()
	for i, o := range table {
		operations[o.Name] = i
	}
	codec, err := wire.New("ecs")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("testdata/errors/*.json")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []errorCase
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			i, ok := operations[c.Operation]
			if !ok || c.Source == "" || c.Source == "neargate" && c.Note == "" {
				t.Fatalf("%s: case of %s lacks an operation or a source", file, c.Operation)
			}
			in := reflect.New(table[i].In)
			if err := json.Unmarshal(c.Request, in.Interface()); err != nil {
				t.Fatalf("%s: %s: %v", file, c.Request, err)
			}
			out, err := table[i].Call(p.ctx(), in.Interface())
			e, ok := awserr.As(err)
			switch {
			case !ok:
				t.Errorf("%s %s: got %v, error %v; want %s: %s", c.Operation, c.Request, out, err, c.Code, c.Message)
			case e.Code != c.Code || e.Message != c.Message:
				t.Errorf("%s %s:\ngot  %s: %s\nwant %s: %s", c.Operation, c.Request, e.Code, e.Message, c.Code, c.Message)
			case codec.Status(e) != c.Status:
				t.Errorf("%s %s: got status %d, want %d", c.Operation, c.Request, codec.Status(e), c.Status)
			}
		}
	}
}
