package wire

import (
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

// AppendJSON appends the body of an answer. out is a pointer to the output type.
func (o *Operation) AppendJSON(b []byte, out any) []byte {
	p := pointee(pointer(out, o.mustBe.out))
	n := o.out()
	if n == nil {
		return append(b, "{}"...)
	}
	return n.encode(b, p, "")
}

// AppendInput appends an input as DecodeJSON takes it, for a request that is passed on or kept.
func (o *Operation) AppendInput(b []byte, in any) []byte {
	p := pointee(pointer(in, o.mustBe.in))
	n := o.in()
	if n == nil {
		return append(b, "{}"...)
	}
	return n.encode(b, p, "")
}

// encode appends the value at p.
func (n *node) encode(b []byte, p unsafe.Pointer, format string) []byte {
	switch n.kind {
	case kindString:
		return appendString(b, *stringAt(p))
	case kindBool:
		return strconv.AppendBool(b, *boolAt(p))
	case kindInt:
		return strconv.AppendInt(b, int64(*intAt(p)), 10)
	case kindLong:
		return strconv.AppendInt(b, *longAt(p), 10)
	case kindFloat:
		return appendJSONFloat(b, float64(*floatAt(p)), 32)
	case kindDouble:
		return appendJSONFloat(b, *doubleAt(p), 64)
	case kindTime:
		return appendJSONTime(b, *timeAt(p), format)
	case kindBlob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, *bytesAt(p))
		return append(b, '"')
	case kindStruct:
		return n.encodeStruct(b, p)
	case kindList:
		b = append(b, '[')
		for i := range lenAt(p) {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.elem.encode(b, n.index(p, i), "")
		}
		return append(b, ']')
	case kindMap:
		return n.encodeMap(b, p)
	case kindUnion:
		v, q := n.variantOf(p)
		if v == nil {
			return append(b, "null"...)
		}
		b = append(b, '{')
		b = append(b, v.jsonKey...)
		b = v.node.encode(b, q, v.timestamp)
		return append(b, '}')
	case kindDocument:
		return appendDocument(b, n.value(p).Interface())
	}
	panic("wire: unknown kind")
}

func (n *node) encodeStruct(b []byte, p unsafe.Pointer) []byte {
	b = append(b, '{')
	start := len(b)
	for _, f := range n.body {
		if !f.isSet(p) {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, f.jsonKey...)
		b = f.node.encode(b, f.at(p), f.timestamp)
	}
	return append(b, '}')
}

func (n *node) encodeMap(b []byte, p unsafe.Pointer) []byte {
	b = append(b, '{')
	start := len(b)
	if n.isStringMap() {
		for k, v := range *stringMapAt(p) {
			if len(b) > start {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			b = appendString(b, v)
		}
		return append(b, '}')
	}
	for it := n.value(p).MapRange(); it.Next(); {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(appendString(b, it.Key().String()), ':')
		b = n.elem.encode(b, addressable(it.Value()), "")
	}
	return append(b, '}')
}

// addressable is the address of a copy of v.
func addressable(v reflect.Value) unsafe.Pointer {
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return pointee(c)
}

// variantOf is the variant a union holds and the address of its value; nil when it holds none the model knows.
func (n *node) variantOf(p unsafe.Pointer) (*variant, unsafe.Pointer) {
	held := n.value(p).Elem()
	if held.Kind() != reflect.Pointer || held.IsNil() {
		return nil, nil
	}
	for i := range n.variants {
		if v := &n.variants[i]; held.Type().Elem() == v.typ {
			if q := pointee(held); v.isSet(q) || !v.ptr {
				return v, v.at(q)
			}
		}
	}
	return nil, nil
}

const hex = "0123456789abcdef"

// appendString appends a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendJSONFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		b = append(b, '"')
		b = appendFloat(b, f, bits)
		return append(b, '"')
	}
	return appendFloat(b, f, bits)
}

func appendJSONTime(b []byte, t time.Time, format string) []byte {
	if format == "" || format == "unixTimestamp" || format == "epoch-seconds" {
		return appendEpoch(b, t)
	}
	b = append(b, '"')
	b = appendTime(b, t, format)
	return append(b, '"')
}
