package wire

import (
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"unsafe"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// restJson1: members are bound to the path, the query string, headers, or the body.

// DecodeHTTP decodes a restJson1 request. labels are the values of the path's labels, unescaped; body is the whole body.
func (o *Operation) DecodeHTTP(labels map[string]string, query url.Values, header http.Header, body []byte) (any, error) {
	in := reflect.New(o.inType)
	n := o.in()
	if n == nil {
		return in.Interface(), nil
	}
	p := pointee(in)
	if n.shape.Payload == "" && len(n.body) > 0 {
		if err := decodeJSON(n, body, in); err != nil {
			return nil, err
		}
	}
	for i := range n.fields {
		f := &n.fields[i]
		var err error
		switch f.ref.Location {
		case "uri":
			if v, ok := labels[f.ref.Wire()]; ok {
				err = f.parseAll(p, []string{v})
			}
		case "querystring":
			if f.node.kind == kindMap {
				err = f.parseQueryMap(p, query, n)
			} else if v, ok := query[f.ref.Wire()]; ok {
				err = f.parseAll(p, v)
			}
		case "header":
			if v := header.Values(f.ref.Wire()); len(v) > 0 {
				err = f.parseHeader(p, v)
			}
		case "headers":
			f.parsePrefixHeaders(p, header)
		case "":
			if n.shape.Payload == f.ref.Name {
				err = f.decodePayload(p, body)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return in.Interface(), nil
}

// parseAll sets the field from texts: a scalar from the only one, a list from all.
func (f *field) parseAll(p unsafe.Pointer, values []string) error {
	refuse := func(want, got string) error {
		return serialization("Value %s of %s is not %s", quote(got), f.ref.Wire(), want)
	}
	switch {
	case f.node.kind == kindList && f.node.elem.isScalar():
		q := f.make(p, &allocator{})
		makeEmpty(q)
		for _, v := range values {
			if want, ok := f.node.elem.parse(v, f.node.push(q)); !ok {
				return refuse(want, v)
			}
		}
	case f.node.isScalar() && len(values) == 1:
		if want, ok := f.node.parse(values[0], f.make(p, &allocator{})); !ok {
			return refuse(want, values[0])
		}
	case f.node.isScalar():
		return serialization("%s is given %d times", f.ref.Wire(), len(values))
	default:
		return serialization("%s is a %s, which only a body can carry", f.ref.Wire(), f.node.shape.Type)
	}
	return nil
}

// parseHeader is parseAll with the list syntax of headers: commas. HTTP dates have one of their own.
func (f *field) parseHeader(p unsafe.Pointer, values []string) error {
	if f.node.kind != kindList || f.node.elem.kind == kindTime {
		return f.parseAll(p, values)
	}
	var all []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			all = append(all, strings.Trim(strings.TrimSpace(part), `"`))
		}
	}
	return f.parseAll(p, all)
}

// parseQueryMap gives a map every query parameter that no other member takes.
func (f *field) parseQueryMap(p unsafe.Pointer, query url.Values, n *node) error {
	taken := map[string]bool{}
	for i := range n.fields {
		if g := &n.fields[i]; g != f && g.ref.Location == "querystring" {
			taken[g.ref.Wire()] = true
		}
	}
	m := reflect.MakeMap(f.node.typ)
	for k, values := range query {
		if taken[k] || len(values) == 0 {
			continue
		}
		v := reflect.New(f.node.elem.typ)
		if f.node.elem.kind == kindList {
			v.Elem().Set(reflect.ValueOf(values).Convert(f.node.elem.typ))
		} else if want, ok := f.node.elem.parse(values[0], pointee(v)); !ok {
			return serialization("Value %s of %s is not %s", quote(values[0]), k, want)
		}
		m.SetMapIndex(reflect.ValueOf(k).Convert(f.node.typ.Key()), v.Elem())
	}
	f.node.value(f.make(p, &allocator{})).Set(m)
	return nil
}

func (f *field) parsePrefixHeaders(p unsafe.Pointer, header http.Header) {
	m := map[string]string{}
	prefix := http.CanonicalHeaderKey(f.ref.Wire())
	for k, v := range header {
		if rest, ok := strings.CutPrefix(k, prefix); ok && rest != "" {
			m[strings.ToLower(rest)] = v[0]
		}
	}
	if len(m) > 0 && f.node.isStringMap() {
		*stringMapAt(f.make(p, &allocator{})) = m
	}
}

// decodePayload reads the body as the one member it is: bytes and text as they are, anything else as JSON.
func (f *field) decodePayload(p unsafe.Pointer, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	switch f.node.kind {
	case kindBlob:
		*bytesAt(f.make(p, &allocator{})) = body
	case kindStream:
		f.node.value(f.make(p, &allocator{})).Set(reflect.ValueOf(io.NopCloser(strings.NewReader(string(body)))))
	case kindString:
		*stringAt(f.make(p, &allocator{})) = string(body)
	default:
		r, err := newReader(body)
		if err != nil {
			return err
		}
		if err := f.node.decode(r, f.make(p, &allocator{}), f.timestamp); err != nil {
			return err
		}
		return r.end()
	}
	return nil
}

// EncodeHTTP renders a restJson1 answer.
func (o *Operation) EncodeHTTP(out any) (Answer, error) {
	a := Answer{Status: o.model.Status, Header: http.Header{"Content-Type": {"application/json"}}}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	p := pointee(pointer(out, o.mustBe.out))
	n := o.out()
	if n == nil {
		return a, nil
	}
	for i := range n.fields {
		f := &n.fields[i]
		if !f.isSet(p) {
			continue
		}
		switch {
		case f.ref.Location == "statusCode":
			a.Status = int(*intAt(f.at(p)))
		case f.ref.Location == "header" && f.node.isScalar():
			a.Header.Set(f.ref.Wire(), string(f.node.appendText(nil, f.at(p), f.timestamp, "rfc822")))
		case f.ref.Location == "headers" && f.node.isStringMap():
			for k, v := range *stringMapAt(f.at(p)) {
				a.Header.Set(f.ref.Wire()+k, v)
			}
		case n.shape.Payload == f.ref.Name:
			if err := f.encodePayload(&a, p); err != nil {
				return Answer{}, err
			}
		}
	}
	if n.shape.Payload == "" && len(n.body) > 0 {
		a.Body = n.encode(nil, p, "")
	}
	return a, nil
}

func (f *field) encodePayload(a *Answer, p unsafe.Pointer) error {
	switch f.node.kind {
	case kindBlob:
		a.Header.Set("Content-Type", "application/octet-stream")
		a.Body = *bytesAt(f.at(p))
	case kindString:
		a.Header.Set("Content-Type", "text/plain")
		a.Body = []byte(*stringAt(f.at(p)))
	case kindStream:
		a.Header.Set("Content-Type", "application/octet-stream")
		r, ok := f.node.value(f.at(p)).Interface().(io.Reader)
		if !ok {
			return awserr.WithStatus(500, "InternalFailure", "the payload cannot be read")
		}
		var err error
		a.Body, err = io.ReadAll(r)
		return err
	default:
		a.Body = f.node.encode(nil, f.at(p), f.timestamp)
	}
	return nil
}
