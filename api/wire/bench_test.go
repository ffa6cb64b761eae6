package wire

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// The codec against encoding/json, in one run: go test -bench . -benchmem ./api/wire

func registerTaskDefinition(t testing.TB) (*Operation, []byte) {
	body, err := os.ReadFile("testdata/RegisterTaskDefinition.json")
	if err != nil {
		t.Fatal(err)
	}
	return mustBind(t, "ecs", "RegisterTaskDefinition"), body
}

func BenchmarkDecode(b *testing.B) {
	o, body := registerTaskDefinition(b)
	b.Run("wire", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := o.DecodeJSON(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			var in ecs.RegisterTaskDefinitionInput
			if err := json.Unmarshal(body, &in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	o, body := registerTaskDefinition(b)
	v, err := o.DecodeJSON(body)
	if err != nil {
		b.Fatal(err)
	}
	in := v.(*ecs.RegisterTaskDefinitionInput)
	b.Run("wire", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		buf := make([]byte, 0, 2*len(body))
		for b.Loop() {
			buf = o.AppendInput(buf[:0], in)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	o, body := registerTaskDefinition(b)
	v, err := o.DecodeJSON(body)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Validate(v); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEncodeAllocatesNothing: the buffer is the caller's.
func TestEncodeAllocatesNothing(t *testing.T) {
	o, body := registerTaskDefinition(t)
	v, err := o.DecodeJSON(body)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 2*len(body))
	if n := testing.AllocsPerRun(100, func() { buf = o.AppendInput(buf[:0], v) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
