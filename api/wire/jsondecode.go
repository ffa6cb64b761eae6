package wire

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unsafe"
)

// DecodeJSON decodes a request body. Members the model does not know are ignored, as AWS does; an empty body is an empty
// structure. The result is a pointer to the input type.
func (o *Operation) DecodeJSON(body []byte) (any, error) {
	in := reflect.New(o.inType)
	if err := decodeJSON(o.in(), body, in); err != nil {
		return nil, err
	}
	return in.Interface(), nil
}

func decodeJSON(n *node, body []byte, into reflect.Value) error {
	r, err := newReader(body)
	if err != nil {
		return err
	}
	if r.next() == 0 && r.i == len(r.s) {
		return nil
	}
	switch {
	case n != nil:
		err = n.decode(r, pointee(into), "")
	case r.next() == '{':
		err = r.skip()
	default:
		err = r.mismatch("Expected null")
	}
	if err != nil {
		return err
	}
	return r.end()
}

// decode reads a value, which is not null, to p.
func (n *node) decode(r *reader, p unsafe.Pointer, format string) error {
	c := r.next()
	switch n.kind {
	case kindString:
		if c != '"' {
			return r.mismatch("can not be converted to a String")
		}
		s, err := r.string()
		*stringAt(p) = s
		return err
	case kindBool:
		switch {
		case c == 't' && r.word("true"):
			*boolAt(p) = true
		case c == 'f' && r.word("false"):
			*boolAt(p) = false
		default:
			return r.mismatch("cannot be converted to Boolean")
		}
		return nil
	case kindInt:
		v, err := r.integer("cannot be converted to Integer", 32)
		*intAt(p) = int32(v)
		return err
	case kindLong:
		v, err := r.integer("cannot be converted to Long", 64)
		*longAt(p) = v
		return err
	case kindFloat:
		v, err := r.float("cannot be converted to Float", 32)
		*floatAt(p) = float32(v)
		return err
	case kindDouble:
		v, err := r.float("cannot be converted to Double", 64)
		*doubleAt(p) = v
		return err
	case kindTime:
		return r.timestamp(p)
	case kindBlob:
		return r.blob(p)
	case kindStruct:
		return n.decodeStruct(r, p)
	case kindList:
		return n.decodeList(r, p)
	case kindMap:
		return n.decodeMap(r, p)
	case kindUnion:
		return n.decodeUnion(r, p)
	case kindDocument:
		return n.decodeDocument(r, p)
	}
	panic("wire: unknown kind")
}

func (n *node) decodeStruct(r *reader, p unsafe.Pointer) error {
	if r.next() != '{' {
		return r.mismatch("Expected null")
	}
	if err := r.enter(); err != nil {
		return err
	}
	guess := 0 // clients write members in some order of the model: try the one after the last
	for first := true; ; {
		ok, err := r.more('}', &first)
		if err != nil || !ok {
			return err
		}
		key, err := r.key()
		if err != nil {
			return err
		}
		if guess >= len(n.body) || n.body[guess].name != key {
			i, ok := n.byName[key]
			if !ok {
				if err := r.skip(); err != nil {
					return err
				}
				continue
			}
			guess = int(i)
		}
		f := n.body[guess]
		guess++
		if r.null() {
			f.clear(p)
			continue
		}
		if err := f.node.decode(r, f.make(p, &r.alloc), f.timestamp); err != nil {
			return err
		}
	}
}

func (n *node) decodeList(r *reader, p unsafe.Pointer) error {
	if r.next() != '[' {
		return r.mismatch("Expected list or null")
	}
	if err := r.enter(); err != nil {
		return err
	}
	makeEmpty(p) // also when the member came twice: the last one counts
	for first := true; ; {
		ok, err := r.more(']', &first)
		if err != nil || !ok {
			return err
		}
		if r.null() {
			return serialization("NULL_VALUE found where not expected")
		}
		if err := n.elem.decode(r, n.push(p), ""); err != nil {
			return err
		}
	}
}

func (n *node) decodeMap(r *reader, p unsafe.Pointer) error {
	if r.next() != '{' {
		return r.mismatch("cannot be converted to a map")
	}
	if err := r.enter(); err != nil {
		return err
	}
	var strs map[string]string
	var m reflect.Value
	if n.isStringMap() {
		strs = map[string]string{}
		*stringMapAt(p) = strs
	} else {
		m = reflect.MakeMap(n.typ)
		n.value(p).Set(m)
	}
	for first := true; ; {
		ok, err := r.more('}', &first)
		if err != nil || !ok {
			return err
		}
		key, err := r.key()
		if err != nil {
			return err
		}
		if !r.share {
			key = strings.Clone(key)
		}
		if r.null() {
			return serialization("NULL_VALUE found where not expected")
		}
		if strs != nil {
			var v string
			if err := n.elem.decode(r, unsafe.Pointer(&v), ""); err != nil {
				return err
			}
			strs[key] = v
			continue
		}
		v := reflect.New(n.elem.typ)
		if err := n.elem.decode(r, pointee(v), ""); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(n.typ.Key()), v.Elem())
	}
}

func (n *node) decodeUnion(r *reader, p unsafe.Pointer) error {
	if r.next() != '{' {
		return r.mismatch("cannot be converted to a union")
	}
	if err := r.enter(); err != nil {
		return err
	}
	n.value(p).SetZero()
	set := false
	for first := true; ; {
		ok, err := r.more('}', &first)
		if err != nil {
			return err
		}
		if !ok {
			if !set {
				return serialization("No member of union %s was found", n.shape.Name)
			}
			return nil
		}
		key, err := r.key()
		if err != nil {
			return err
		}
		if r.null() {
			continue
		}
		v := n.variant(key)
		if v == nil {
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		if set {
			return serialization("More than one member of union %s was found", n.shape.Name)
		}
		set = true
		val := reflect.New(v.typ)
		if err := v.node.decode(r, v.make(pointee(val), &r.alloc), v.timestamp); err != nil {
			return err
		}
		n.value(p).Set(val)
	}
}

func (n *node) variant(name string) *variant {
	for i := range n.variants {
		if n.variants[i].name == name {
			return &n.variants[i]
		}
	}
	return nil
}

func (n *node) decodeDocument(r *reader, p unsafe.Pointer) error {
	r.next()
	start := r.i
	if err := r.skip(); err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(r.s[start:r.i]))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return serialization("%v", err)
	}
	n.value(p).Set(reflect.ValueOf(n.document(documentNumbers(v))))
	return nil
}

// integer reads a whole number of the given size; 1.0 and 1e3 are whole.
func (r *reader) integer(want string, bits int) (int64, error) {
	if c := r.next(); c != '-' && (c < '0' || c > '9') {
		return 0, r.mismatch(want)
	}
	s, err := r.number()
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(s, 10, bits)
	if err == nil {
		return v, nil
	}
	if strings.ContainsAny(s, ".eE") {
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 && (bits == 64 || math.Abs(f) <= math.MaxInt32) {
			return int64(f), nil
		}
		return 0, serialization("DECIMAL_VALUE %s", want)
	}
	return 0, serialization("NUMBER_VALUE %s", want)
}

func (r *reader) float(want string, bits int) (float64, error) {
	switch c := r.next(); {
	case c == '"':
		start := r.i
		s, err := r.quoted()
		if err != nil {
			return 0, err
		}
		if f, ok := namedFloats[s]; ok {
			return f, nil
		}
		r.i = start
		return 0, r.mismatch(want)
	case c != '-' && (c < '0' || c > '9'):
		return 0, r.mismatch(want)
	}
	s, err := r.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(s, bits)
	if err != nil {
		return 0, serialization("NUMBER_VALUE %s", want)
	}
	return f, nil
}

// namedFloats are those that JSON numbers cannot spell.
var namedFloats = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

// timestamp reads seconds since 1970 or, as clients are lenient, an ISO 8601 or HTTP date.
func (r *reader) timestamp(p unsafe.Pointer) error {
	switch c := r.next(); {
	case c == '"':
		s, err := r.quoted()
		if err != nil {
			return err
		}
		t, ok := parseDate(s)
		if !ok {
			return serialization("STRING_VALUE cannot be converted to Timestamp")
		}
		*timeAt(p) = t
	case c == '-' || c >= '0' && c <= '9':
		s, err := r.number()
		if err != nil {
			return err
		}
		t, ok := parseEpoch(s)
		if !ok {
			return serialization("NUMBER_VALUE cannot be converted to Timestamp")
		}
		*timeAt(p) = t
	default:
		return r.mismatch("cannot be converted to Timestamp")
	}
	return nil
}

func (r *reader) blob(p unsafe.Pointer) error {
	if r.next() != '"' {
		return r.mismatch("cannot be converted to Blob")
	}
	s, err := r.quoted()
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return serialization("STRING_VALUE cannot be converted to Blob: it is not base64")
	}
	*bytesAt(p) = b
	return nil
}
