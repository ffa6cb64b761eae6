package state

import (
	"testing"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/typepb"
)

func within(s string, b []byte) bool {
	at, from := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return at >= from && at+uintptr(len(s)) <= from+uintptr(len(b))
}

// sample has a field of every kind that a plan knows, and some that it does not.
func sample() *typepb.Type {
	return &typepb.Type{
		Name: "name",
		Fields: []*typepb.Field{
			{Kind: typepb.Field_TYPE_STRING, Number: -7, Name: "first", Packed: true, Options: []*typepb.Option{{Name: "inner", Value: &anypb.Any{TypeUrl: "url", Value: []byte("bytes")}}}},
			{},
			{Name: "third", OneofIndex: 1 << 30},
		},
		Oneofs:        []string{"a", "", "b"},
		SourceContext: &sourcecontextpb.SourceContext{FileName: "file"},
		Syntax:        typepb.Syntax_SYNTAX_EDITIONS,
	}
}

// A decoded message's strings, of its lists and of messages in it too, are parts of what it was decoded from; and the message is the one that was encoded.
func TestDecodedStringsAreParts(t *testing.T) {
	want := sample()
	value, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(want, textOf(value))
	if err != nil || !proto.Equal(m, want) {
		t.Fatalf("%v, %v, want %v", m, err, want)
	}
	got := m.(*typepb.Type)
	for _, s := range []string{got.Name, got.Oneofs[0], got.Oneofs[2], got.Fields[0].Name, got.Fields[0].Options[0].Name, got.Fields[0].Options[0].Value.TypeUrl,
		got.Fields[2].Name, got.SourceContext.FileName} {
		if !within(s, value) {
			t.Errorf("%q is a copy", s)
		}
	}
	if v := got.Fields[0].Options[0].Value.Value; within(string(v), value) {
		t.Error("bytes are shared, which a reader might change")
	}
}

// FuzzDecode: whatever the bytes are, fields that come twice, in any order, of another type or not known, what comes out is what package proto makes of them.
func FuzzDecode(f *testing.F) {
	value, err := proto.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add(append(value, value...)) // messages are merged, lists go on
	f.Add(append(value, value[2:]...))
	name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "name")
	f.Add(append(protowire.AppendVarint(protowire.AppendTag(name, 1, protowire.VarintType), 3), name...)) // of another type
	f.Add(protowire.AppendString(protowire.AppendTag(name, 99, protowire.BytesType), "of a later version"))
	f.Add(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "\xff"))
	f.Add([]byte("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	list, err := structpb.NewList([]any{"x", 1, map[string]any{"y": true, "z": []any{nil}}})
	if err != nil {
		f.Fatal(err)
	}
	if value, err = proto.Marshal(list); err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	nested := []byte{}
	for range 2 * maxNesting { // a list in a value in a list …
		nested = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nested))
	}
	f.Add(nested)
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, m := range []protoreflect.ProtoMessage{&typepb.Type{}, &typepb.Field{}, &structpb.ListValue{}, &structpb.Struct{}} {
			want := m.ProtoReflect().New().Interface()
			wantErr := proto.Unmarshal(value, want)
			got, err := decode(m, string(value))
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%T: %v, want %v", m, err, wantErr)
			}
			if err != nil {
				continue
			}
			a, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if string(a) != string(b) {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	})
}
