package state

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// decode is a message of m's type that text encodes, as proto.Unmarshal makes it, but that its strings are parts of text: a record's text is in
// memory once, and is one object for the garbage collector in place of twenty. Who keeps one of the strings for good keeps all of text; who keeps
// many clones them. Maps, and fields that may be absent, have strings of their own.
func decode(m protoreflect.ProtoMessage, text string) (proto.Message, error) {
	value := bytesOf(text)
	made := m.ProtoReflect().New().Interface()
	t := reflect.TypeOf(made)
	if p := planOf(t); p != nil && p.decode(reflect.ValueOf(made).UnsafePointer(), value, maxNesting) {
		return made, nil
	}
	made = m.ProtoReflect().New().Interface() // also to find out what is wrong
	return made, proto.Unmarshal(value, made)
}

// maxNesting is how deep messages in messages are followed here.
const maxNesting = 100

// plan is how messages of a type are decoded. It knows the kinds of field that records have most; all others, and those of a later version, are left
// to package proto.
type plan struct {
	message reflect.Type // the struct
	fields  []plannedField
}

type plannedField struct {
	number protowire.Number
	kind   fieldKind
	offset uintptr // in the struct
	of     *plan   // of messages
}

type fieldKind uint8

const (
	stringField fieldKind = iota
	boolField
	number32Field // int32, uint32 and enumerations
	number64Field
	messageField
	stringsField
	messagesField
)

func (k fieldKind) wire() protowire.Type {
	switch k {
	case boolField, number32Field, number64Field:
		return protowire.VarintType
	}
	return protowire.BytesType
}

var plans = struct {
	sync.RWMutex
	of map[reflect.Type]*plan
}{of: map[reflect.Type]*plan{}}

// planOf is the plan of t, a pointer to a struct; nil if that is not one as protoc-gen-go makes it of proto3, whose fields are there to be set.
func planOf(t reflect.Type) *plan {
	plans.RLock()
	p, ok := plans.of[t]
	plans.RUnlock()
	if ok {
		return p
	}
	plans.Lock()
	defer plans.Unlock()
	return makePlan(t)
}

func makePlan(t reflect.Type) *plan {
	if p, ok := plans.of[t]; ok {
		return p // one that is being made too: of a message that holds its like
	}
	plans.of[t] = nil
	m, ok := reflect.Zero(t).Interface().(proto.Message)
	if !ok || t.Elem().Kind() != reflect.Struct || m.ProtoReflect().Descriptor().ParentFile().Syntax() != protoreflect.Proto3 {
		return nil
	}
	if state, ok := t.Elem().FieldByName("state"); !ok || state.Tag.Get("protogen") != "open.v1" {
		return nil
	}
	p := &plan{message: t.Elem()}
	plans.of[t] = p
	for i := range t.Elem().NumField() {
		f := t.Elem().Field(i)
		encoding, rest, _ := strings.Cut(f.Tag.Get("protobuf"), ",")
		text, _, _ := strings.Cut(rest, ",")
		number, err := strconv.Atoi(text)
		if planned := (plannedField{number: protowire.Number(number), offset: f.Offset}); err == nil && planned.take(encoding, f.Type) {
			p.fields = append(p.fields, planned)
		}
	}
	slices.SortFunc(p.fields, func(a, b plannedField) int { return int(a.number - b.number) })
	return p
}

// take says whether a field is of one of the kinds, and which.
func (f *plannedField) take(encoding string, t reflect.Type) bool {
	list := t.Kind() == reflect.Slice
	if list {
		t = t.Elem()
	}
	switch kind := t.Kind(); {
	case encoding == "varint" && kind == reflect.Bool && !list:
		f.kind = boolField
	case encoding == "varint" && (kind == reflect.Int32 || kind == reflect.Uint32) && !list:
		f.kind = number32Field
	case encoding == "varint" && (kind == reflect.Int64 || kind == reflect.Uint64) && !list:
		f.kind = number64Field
	case encoding == "bytes" && kind == reflect.String:
		if f.kind = stringField; list {
			f.kind = stringsField
		}
	case encoding == "bytes" && kind == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		if f.kind = messageField; list {
			f.kind = messagesField
		}
		f.of = makePlan(t)
		return f.of != nil
	default:
		return false
	}
	return true
}

// decode fills the message at m. If it cannot it says so, and m is of no use.
func (p *plan) decode(m unsafe.Pointer, value []byte, nesting int) bool {
	if nesting == 0 {
		return false
	}
	var rest []byte // fields that are left to package proto
	at := 0         // fields come in order, mostly
	for len(value) > 0 {
		number, wire, size := protowire.ConsumeTag(value)
		if size < 0 {
			return false
		}
		length := protowire.ConsumeFieldValue(number, wire, value[size:])
		if length < 0 {
			return false
		}
		field, content := value[:size+length], value[size:size+length]
		value = value[size+length:]
		found := at < len(p.fields) && p.fields[at].number == number
		if !found {
			at, found = slices.BinarySearchFunc(p.fields, number, func(f plannedField, n protowire.Number) int { return int(f.number - n) })
		}
		if !found || p.fields[at].kind.wire() != wire {
			rest = append(rest, field...)
			continue
		}
		if !p.fields[at].decode(m, content, nesting) {
			return false
		}
		if k := p.fields[at].kind; k != stringsField && k != messagesField {
			at++
		}
	}
	return rest == nil || proto.UnmarshalOptions{Merge: true}.Unmarshal(rest, reflect.NewAt(p.message, m).Interface().(proto.Message)) == nil
}

func (f *plannedField) decode(m unsafe.Pointer, content []byte, nesting int) bool {
	at := unsafe.Add(m, f.offset)
	if f.kind.wire() == protowire.VarintType {
		v, _ := protowire.ConsumeVarint(content)
		switch f.kind {
		case boolField:
			*(*bool)(at) = v != 0
		case number32Field:
			*(*uint32)(at) = uint32(v)
		case number64Field:
			*(*uint64)(at) = v
		}
		return true
	}
	content, _ = protowire.ConsumeBytes(content)
	switch f.kind {
	case stringField:
		*(*string)(at) = textOf(content)
		return utf8.Valid(content)
	case stringsField:
		*(*[]string)(at) = append(*(*[]string)(at), textOf(content))
		return utf8.Valid(content)
	case messageField:
		of := (*unsafe.Pointer)(at)
		if *of == nil {
			*of = reflect.New(f.of.message).UnsafePointer()
		}
		return f.of.decode(*of, content, nesting-1) // what comes twice is merged
	default: // messagesField
		of := reflect.New(f.of.message).UnsafePointer()
		*(*[]unsafe.Pointer)(at) = append(*(*[]unsafe.Pointer)(at), of)
		return f.of.decode(of, content, nesting-1)
	}
}

// textOf is b as a string, not a copy.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is s as bytes, not a copy: they must not be changed.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
