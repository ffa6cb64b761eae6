package state

import (
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// share has the strings of m, which was decoded from value, be parts of value: a record's text is in memory once, and is one object
// for the garbage collector in place of twenty. A string only ever gives way to an equal one, so m stays what it is, whatever value holds.
// value must not be changed afterwards. Who keeps one of the strings for good keeps all of value; who keeps many clones them. Maps keep what they
// have.
func share(m protoreflect.Message, value []byte) {
	fields := m.Descriptor().Fields()
	var last protoreflect.FieldDescriptor // of a list
	n := 0                                // elements of it that have been passed
	for len(value) > 0 {
		number, kind, size := protowire.ConsumeTag(value)
		if size < 0 {
			return
		}
		value = value[size:]
		if kind != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(number, kind, value); size < 0 {
				return
			}
			value = value[size:]
			continue
		}
		text, size := protowire.ConsumeBytes(value)
		if size < 0 {
			return
		}
		value = value[size:]
		f := fields.ByNumber(number)
		if f == nil || f.IsMap() || f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.MessageKind || !m.Has(f) {
			continue
		}
		if !f.IsList() {
			switch v := m.Get(f); {
			case f.Kind() == protoreflect.MessageKind:
				share(v.Message(), text)
			case v.String() == string(text):
				m.Set(f, protoreflect.ValueOfString(textOf(text)))
			}
			continue
		}
		if f != last {
			last, n = f, 0
		}
		if list := m.Mutable(f).List(); n < list.Len() {
			switch v := list.Get(n); {
			case f.Kind() == protoreflect.MessageKind:
				share(v.Message(), text)
			case v.String() == string(text):
				list.Set(n, protoreflect.ValueOfString(textOf(text)))
			}
		}
		n++
	}
}

// textOf is b as a string, not a copy.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
