package controlplane

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// shapeTree is the plain way to what appendShape writes: a tree for encoding/json.
func shapeTree(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if t := shapeTree(v.Elem()); t != nil {
			return t
		}
		return v.Elem().Interface() // a pointer to a zero value is set
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t
		}
		m := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || f.Anonymous || f.Name == "ResultMetadata" {
				continue
			}
			if t := shapeTree(v.Field(i)); t != nil {
				m[wireName(f.Name)] = t
			}
		}
		return m
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = shapeTree(v.Index(i))
			if list[i] == nil {
				list[i] = v.Index(i).Interface()
			}
		}
		return list
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value().Interface()
		}
		return m
	default:
		if v.IsZero() {
			return nil
		}
		return v.Interface()
	}
}

// scatter sets about half of what v has.
func scatter(r *rand.Rand, v reflect.Value, depth int) {
	if r.IntN(2) == 0 || depth == 0 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		scatter(r, v.Elem(), depth-1)
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<32), r.Int64N(1e9)).UTC()))
			return
		}
		for i := range v.NumField() {
			scatter(r, v.Field(i), depth-1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			scatter(r, v.Index(i), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			scatter(r, key, depth-1)
			scatter(r, value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString([]string{"plain text", "", "<a> & \"b\" \\", "tab\tnew\nline", "é\u2028\x7f\xff", "x"}[r.IntN(6)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(int32(r.Uint32() >> r.IntN(32))))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	}
}

// What is written directly is byte for byte what encoding/json makes of a tree of maps.
func TestEncodeShapeWritesWhatJSONDoes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, zero := range []any{
		types.Task{}, types.TaskDefinition{}, types.Service{}, types.ContainerInstance{}, types.NetworkConfiguration{}, types.TaskOverride{},
		[]types.LoadBalancer{}, []types.PlacementConstraint{}, &types.DeploymentConfiguration{},
	} {
		for range 300 {
			v := reflect.New(reflect.TypeOf(zero)).Elem()
			scatter(r, v, 12)
			want := ""
			if tree := shapeTree(v); tree != nil {
				text, err := json.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				want = string(text)
			}
			if got := EncodeShape(v.Interface()); got != want {
				t.Fatalf("%T:\n%s, want\n%s", zero, got, want)
			}
		}
	}
}

func BenchmarkEncodeShape(b *testing.B) {
	task := types.Task{}
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		scatter(r, reflect.ValueOf(&task).Elem(), 6)
	}
	b.Run("direct", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			EncodeShape(task)
		}
	})
	b.Run("tree", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(shapeTree(reflect.ValueOf(task))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a newer build has written into a shape outlives its being read, changed and written by this one.
func TestUnknownMembersOfShapesAreKept(t *testing.T) {
	for name, c := range map[string]struct{ old, want string }{
		"none":        {"", `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150}`},
		"known":       {`{"maximumPercent":100,"deploymentCircuitBreaker":{"enable":true}}`, `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150}`},
		"at the top":  {`{"newer":{"a":[1]}}`, `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150,"newer":{"a":[1]}}`},
		"a number":    {`{"newer":9007199254740993}`, `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150,"newer":9007199254740993}`},
		"in a member": {`{"deploymentCircuitBreaker":{"rollback":true,"newer":"x"}}`, `{"deploymentCircuitBreaker":{"enable":true,"newer":"x","rollback":true},"maximumPercent":150}`},
	} {
		shape := DecodeShape[types.DeploymentConfiguration](c.old)
		shape.MaximumPercent = aws.Int32(150)
		if shape.DeploymentCircuitBreaker == nil {
			shape.DeploymentCircuitBreaker = &types.DeploymentCircuitBreaker{}
		}
		shape.DeploymentCircuitBreaker.Enable = true
		if got := EncodeShapeOver(c.old, shape); got != c.want {
			t.Errorf("%s: got %s\nwant %s", name, got, c.want)
		}
	}
}
