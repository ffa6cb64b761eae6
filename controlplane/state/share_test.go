package state

import (
	"testing"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func within(s string, b []byte) bool {
	at, from := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return at >= from && at+uintptr(len(s)) <= from+uintptr(len(b))
}

// A decoded message's strings, of its lists and of messages in it too, are parts of what it was decoded from, and equal to what they were.
func TestSharedStrings(t *testing.T) {
	want := &descriptorpb.FileDescriptorProto{
		Name: proto.String("name"), Dependency: []string{"a", "", "b"},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("first"), ReservedName: []string{"x", "y"}, Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("inner")}}},
			{Name: proto.String("second"), ReservedRange: []*descriptorpb.DescriptorProto_ReservedRange{{Start: proto.Int32(3)}}},
		},
		Options: &descriptorpb.FileOptions{GoPackage: proto.String("package")},
	}
	value, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(value, got); err != nil {
		t.Fatal(err)
	}
	share(got.ProtoReflect(), value)
	if !proto.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for _, s := range []string{got.GetName(), got.Dependency[0], got.Dependency[2], got.MessageType[0].GetName(), got.MessageType[0].ReservedName[1],
		got.MessageType[0].Field[0].GetName(), got.MessageType[1].GetName(), got.Options.GetGoPackage()} {
		if !within(s, value) {
			t.Errorf("%q is a copy", s)
		}
	}
}

// FuzzShare: whatever the bytes are, fields that come twice, in any order or are not known, sharing changes nothing.
func FuzzShare(f *testing.F) {
	name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "name")
	f.Add(append(name, name...))
	options := protowire.AppendTag(nil, 8, protowire.BytesType)
	f.Add(append(protowire.AppendBytes(options, protowire.AppendString(protowire.AppendTag(nil, 11, protowire.BytesType), "go")), protowire.AppendBytes(options, nil)...))
	f.Add([]byte("\x1a\x01a\x0a\x01b\x1a\x01c\x22\x03\x0a\x01d\x1a\x01e"))
	f.Fuzz(func(t *testing.T, value []byte) {
		var got, want protoreflect.ProtoMessage = &descriptorpb.FileDescriptorProto{}, &descriptorpb.FileDescriptorProto{}
		if proto.Unmarshal(value, got) != nil || proto.Unmarshal(value, want) != nil {
			return
		}
		share(got.ProtoReflect(), value)
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
	})
}
