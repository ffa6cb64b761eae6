package wire

import (
	"hash/fnv"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	ecsdocument "github.com/aws/aws-sdk-go-v2/service/ecs/document"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-2f228079/neargate/api/model"
)

// rounds is how many random values each operation gets, in each direction. ec2 has 811 operations.
func rounds(service string) int {
	if service == "ec2" {
		return 2
	}
	return 6
}

// compare ignores what is no part of a value: unexported fields, and how a document holds its value.
var compare = cmp.Options{
	cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && !isExported(f.Name())
	}, cmp.Ignore()),
	cmp.Comparer(func(a, b ecsdocument.Interface) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		x, err1 := a.MarshalSmithyDocument()
		y, err2 := b.MarshalSmithyDocument()
		return err1 == nil && err2 == nil && string(x) == string(y)
	}),
	// The clients read JSON's seconds through a float64 and cut; a millisecond may be lost.
	cmp.Comparer(func(a, b time.Time) bool { return a.Sub(b).Abs() <= time.Millisecond }),
}

func isExported(name string) bool { return name[0] >= 'A' && name[0] <= 'Z' }

// TestClientRequests decodes what the SDK's clients send for random inputs of every operation.
func TestClientRequests(t *testing.T) {
	eachOperation(t, func(t *testing.T, o *Operation, r *rand.Rand) {
		x := &exchange{answer: Answer{Status: 500}}
		client := newClient(o.codec.model.Service, x)
		in := o.New()
		g := generator{Rand: r, protocol: o.codec.protocol, input: true, left: 150}
		if n := o.in(); n != nil {
			g.fill(n, pointee(reflect.ValueOf(in)), 0)
		}
		x.body, x.target = nil, ""
		_, err := call(client, o.Name(), in)
		if x.target == "" && x.body == nil {
			t.Fatalf("the client sent nothing: %v", err)
		}
		if p := o.codec.model.TargetPrefix; p != "" && x.target != p+"."+o.Name() {
			t.Errorf("the client's target is %s", x.target)
		}
		got, err := decodeAs(o, x.body)
		if err != nil {
			t.Fatalf("decode: %v\n%s", err, x.body)
		}
		if d := cmp.Diff(in, got, compare, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("decoded differs from what the client was given (-given +decoded):\n%s\n%.800s", firstDifference(d), x.body)
		}
	})
}

// TestClientAnswers lets the SDK's clients read what we answer for random outputs of every operation.
func TestClientAnswers(t *testing.T) {
	eachOperation(t, func(t *testing.T, o *Operation, r *rand.Rand) {
		x := &exchange{}
		client := newClient(o.codec.model.Service, x)
		in := o.New()
		g := generator{Rand: r, protocol: o.codec.protocol, input: true, left: 0}
		if n := o.in(); n != nil {
			g.fill(n, pointee(reflect.ValueOf(in)), 0)
		}
		out := reflect.New(o.mustBe.out.Elem()).Interface()
		g = generator{Rand: r, protocol: o.codec.protocol, left: 150}
		if n := o.out(); n != nil {
			g.fill(n, pointee(reflect.ValueOf(out)), 0)
		}
		x.answer = answerAs(o, out)
		got, err := call(client, o.Name(), in)
		if err != nil {
			t.Fatalf("the client refused the answer: %v\n%.800s", err, x.answer.Body)
		}
		clearMetadata(got)
		if d := cmp.Diff(out, got, compare, answerOptions(o)); d != "" {
			t.Errorf("the client read something else (-answered +read):\n%s\n%.1500s", firstDifference(d), x.answer.Body)
		}
	})
}

// answerOptions: XML cannot tell an empty structure or list from an absent one in every place; JSON can.
func answerOptions(o *Operation) cmp.Option {
	if o.codec.protocol == JSON {
		return cmp.Options{}
	}
	return cmpopts.EquateEmpty()
}

// answeredByStreams have answers that are no single document.
var answeredByStreams = []string{"GetLogObject", "StartLiveTail"}

func eachOperation(t *testing.T, f func(t *testing.T, o *Operation, r *rand.Rand)) {
	for _, service := range model.Services() {
		t.Run(service, func(t *testing.T) {
			for name := range operationTypes(service) {
				if slices.Contains(answeredByStreams, name) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					o := mustBind(t, service, name)
					h := fnv.New64()
					h.Write([]byte(service + name))
					for i := range rounds(service) {
						seed := h.Sum64() + uint64(i)
						f(t, o, rand.New(rand.NewPCG(seed, 1)))
						if t.Failed() {
							t.Fatalf("seed %d", seed)
						}
					}
				})
			}
		})
	}
}
