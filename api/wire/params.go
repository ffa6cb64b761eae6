package wire

import (
	"net/url"
	"reflect"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// DecodeREST decodes a request of the REST API: a JSON body as DecodeJSON takes it, which may be empty, and parameters
// of path and query string by the names of the input's members, in any case. A parameter replaces what the body says; a
// list takes every value. A parameter that is no member is refused: a misspelt filter must not select everything.
func (o *Operation) DecodeREST(body []byte, params url.Values) (any, error) {
	in := reflect.New(o.inType)
	n := o.in()
	if err := decodeJSON(n, body, in); err != nil {
		return nil, err
	}
	for name, values := range params {
		var f *field
		if n != nil {
			f = n.fieldFold(name)
		}
		if f == nil {
			return nil, awserr.WithStatus(400, "ValidationException", "%s has no parameter %s", o.model.Name, quote(name))
		}
		if err := f.parseAll(pointee(in), values); err != nil {
			return nil, err
		}
	}
	return in.Interface(), nil
}

// fieldFold is the field of the member called name in any case.
func (n *node) fieldFold(name string) *field {
	for i := range n.fields {
		if f := &n.fields[i]; strings.EqualFold(f.ref.Name, name) {
			return f
		}
	}
	return nil
}
