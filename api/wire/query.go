package wire

import (
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxParams bounds the parameters of one query request, and so the work of sorting them into a tree.
const maxParams = 20_000

// DecodeQuery decodes a request's form by the rules of the service's protocol (query or ec2). Parameters the model does
// not know are ignored, as AWS does. The result is a pointer to the input type.
func (o *Operation) DecodeQuery(form url.Values) (any, error) {
	in := reflect.New(o.inType)
	n := o.in()
	if n == nil {
		return in.Interface(), nil
	}
	tree, err := o.codec.parameters(form)
	if err != nil {
		return nil, err
	}
	d := &queryDecoder{codec: o.codec}
	if err := d.structure(n, tree, pointee(in)); err != nil {
		return nil, err
	}
	return in.Interface(), nil
}

// parameter is a node of the tree that dotted names make: Tags.member.1.Key.
type parameter struct {
	name  string // in full, for messages
	value string
	set   bool
	below map[string]*parameter
}

func (c *Codec) parameters(form url.Values) (*parameter, error) {
	if len(form) > maxParams {
		return nil, c.malformed("The request has more than " + strconv.Itoa(maxParams) + " parameters")
	}
	root := &parameter{}
	for name, values := range form {
		if len(values) == 0 {
			continue
		}
		if !utf8.ValidString(name) || !utf8.ValidString(values[0]) {
			return nil, c.malformed("The request is not valid UTF-8")
		}
		if strings.Count(name, ".") > 2*maxDepth {
			return nil, c.malformed("The name of a parameter is nested too deeply")
		}
		at := root
		for rest, more := name, true; more; {
			var part string
			part, rest, more = strings.Cut(rest, ".")
			next := at.below[part]
			if next == nil {
				next = &parameter{name: name[:len(name)-len(rest)]}
				next.name = strings.TrimSuffix(next.name, ".")
				if at.below == nil {
					at.below = map[string]*parameter{}
				}
				at.below[part] = next
			}
			at = next
		}
		at.value, at.set = values[0], true
	}
	return root, nil
}

// find is the parameter at a dotted path below p, or nil: some names of the model have dots in them.
func (p *parameter) find(path string) *parameter {
	for more := true; more && p != nil; {
		var part string
		part, path, more = strings.Cut(path, ".")
		p = p.below[part]
	}
	return p
}

// numbered are the elements 1, 2, 3 … below p in order. Gaps are closed, as AWS does.
func (p *parameter) numbered() []*parameter {
	type element struct {
		index int
		p     *parameter
	}
	var list []element
	for name, e := range p.below {
		if i, err := strconv.Atoi(name); err == nil && i >= 0 {
			list = append(list, element{i, e})
		}
	}
	slices.SortFunc(list, func(a, b element) int {
		if a.index != b.index {
			return a.index - b.index
		}
		return strings.Compare(a.p.name, b.p.name) // "1" and "01"
	})
	out := make([]*parameter, len(list))
	for i, e := range list {
		out[i] = e.p
	}
	return out
}

type queryDecoder struct {
	codec *Codec
	alloc allocator
}

func (d *queryDecoder) structure(n *node, at *parameter, p unsafe.Pointer) error {
	for i := range n.fields {
		f := &n.fields[i]
		q := at.find(f.query)
		if q == nil {
			continue
		}
		// "Name=" sends an empty list or string; "Name.x=" without a value of its own sends something below.
		if err := d.value(f.node, q, f.make(p, &d.alloc), f.flat); err != nil {
			return err
		}
	}
	return nil
}

func (d *queryDecoder) value(n *node, at *parameter, p unsafe.Pointer, flat bool) error {
	switch n.kind {
	case kindStruct:
		return d.structure(n, at, p)
	case kindList:
		return d.list(n, at, p, flat)
	case kindMap:
		return d.mapping(n, at, p, flat)
	case kindUnion:
		return d.union(n, at, p)
	case kindDocument:
		return d.codec.malformed("Parameter " + at.name + " is a document, which this protocol cannot carry")
	}
	if want, ok := n.parse(at.value, p); !ok {
		return d.codec.unparsable(at.name, at.value, want)
	}
	return nil
}

func (d *queryDecoder) list(n *node, at *parameter, p unsafe.Pointer, flat bool) error {
	makeEmpty(p)
	elements := at
	if !flat && d.codec.protocol != EC2 {
		if elements = at.below[n.elemName]; elements == nil {
			elements = at.below["member"]
		}
		if elements == nil {
			elements = at // some clients send lists flat where they should not; AWS takes them
		}
	} else if d.codec.protocol == EC2 && len(at.below) > 0 && len(at.numbered()) == 0 {
		// Older tools wrap lists: SecurityGroup.item.1.
		if w := at.below[n.elemName]; w != nil {
			elements = w
		}
	}
	for _, e := range elements.numbered() {
		if err := d.value(n.elem, e, n.push(p), false); err != nil {
			return err
		}
	}
	return nil
}

func (d *queryDecoder) mapping(n *node, at *parameter, p unsafe.Pointer, flat bool) error {
	m := reflect.MakeMap(n.typ)
	n.value(p).Set(m)
	if e := at.below["entry"]; e != nil && !flat {
		at = e
	}
	for _, e := range at.numbered() {
		k, v := e.below[n.keyName], e.below[n.valName]
		if k == nil {
			return d.codec.malformed("Parameter " + e.name + " has no " + n.keyName)
		}
		val := reflect.New(n.elem.typ)
		if v != nil {
			if err := d.value(n.elem, v, pointee(val), false); err != nil {
				return err
			}
		}
		m.SetMapIndex(reflect.ValueOf(k.value).Convert(n.typ.Key()), val.Elem())
	}
	return nil
}

func (d *queryDecoder) union(n *node, at *parameter, p unsafe.Pointer) error {
	for i := range n.variants {
		v := &n.variants[i]
		q := at.find(v.query)
		if q == nil {
			continue
		}
		if !n.value(p).IsNil() {
			return d.codec.malformed("Parameter " + at.name + " has more than one member of the union " + n.shape.Name)
		}
		val := reflect.New(v.typ)
		if err := d.value(v.node, q, v.make(pointee(val), &d.alloc), v.flat); err != nil {
			return err
		}
		n.value(p).Set(val)
	}
	return nil
}

// malformed is the refusal of a request that is not what the protocol allows.
func (c *Codec) malformed(message string) error {
	if c.protocol == EC2 {
		return awserr.WithStatus(400, "InvalidParameterValue", "%s", message)
	}
	return awserr.WithStatus(400, "MalformedInput", "%s", message)
}

func (c *Codec) unparsable(name, value, want string) error {
	if c.protocol == EC2 {
		return awserr.WithStatus(400, "InvalidParameterValue", "Invalid value '%s' for %s; %s is expected", value, name, want)
	}
	return awserr.WithStatus(400, "MalformedInput", "Value %s of parameter %s is not %s", quote(value), name, want)
}
