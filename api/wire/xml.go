package wire

import (
	"unicode/utf8"
	"unsafe"
)

// AppendXML appends the whole answer of a query or ec2 operation. out is a pointer to the output type.
func (o *Operation) AppendXML(b []byte, out any, requestID string) []byte {
	p := pointee(pointer(out, o.mustBe.out))
	n := o.out()
	name := o.model.Name + "Response"
	b = append(b, '<')
	b = append(b, name...)
	b = append(b, ` xmlns="`...)
	b = append(b, o.codec.xmlNamespace()...)
	b = append(b, `">`...)
	if o.codec.protocol == EC2 {
		b = append(b, "<requestId>"...)
		b = appendXMLText(b, requestID)
		b = append(b, "</requestId>"...)
		if n == nil || len(n.body) == 0 {
			b = append(b, "<return>true</return>"...)
		} else {
			b = n.appendMembers(b, p)
		}
		return appendClose(b, name)
	}
	if wrapper := o.model.ResultWrapper; wrapper != "" {
		b = appendOpen(b, wrapper)
		if n != nil {
			b = n.appendMembers(b, p)
		}
		b = appendClose(b, wrapper)
	}
	b = append(b, "<ResponseMetadata><RequestId>"...)
	b = appendXMLText(b, requestID)
	b = append(b, "</RequestId></ResponseMetadata>"...)
	return appendClose(b, name)
}

// xmlNamespace is the one answers carry: ec2's have a slash at the end that its model does not.
func (c *Codec) xmlNamespace() string {
	if c.protocol == EC2 {
		return c.model.XMLNamespace + "/"
	}
	return c.model.XMLNamespace
}

func appendOpen(b []byte, name string) []byte {
	b = append(b, '<')
	b = append(b, name...)
	return append(b, '>')
}

func appendClose(b []byte, name string) []byte {
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

// appendMembers appends the elements of a structure without one around them.
func (n *node) appendMembers(b []byte, p unsafe.Pointer) []byte {
	for _, f := range n.body {
		if !f.ref.XMLAttribute && f.isSet(p) {
			b = f.node.appendElement(b, f.at(p), f.ref.Wire(), f.flat, f.timestamp)
		}
	}
	return b
}

func (n *node) appendElement(b []byte, p unsafe.Pointer, name string, flat bool, format string) []byte {
	switch n.kind {
	case kindStruct:
		b = append(b, '<')
		b = append(b, name...)
		for _, f := range n.body {
			if f.ref.XMLAttribute && f.isSet(p) {
				b = append(b, ' ')
				b = append(b, f.ref.Wire()...)
				b = append(b, `="`...)
				b = appendXMLText(b, string(f.node.appendText(nil, f.at(p), f.timestamp, "")))
				b = append(b, '"')
			}
		}
		b = append(b, '>')
		b = n.appendMembers(b, p)
		return appendClose(b, name)
	case kindList:
		return n.appendList(b, p, name, flat)
	case kindMap:
		return n.appendMap(b, p, name, flat)
	case kindUnion:
		b = appendOpen(b, name)
		if v, q := n.variantOf(p); v != nil {
			b = v.node.appendElement(b, q, v.ref.Wire(), v.flat, v.timestamp)
		}
		return appendClose(b, name)
	case kindDocument:
		panic("wire: a document in an XML protocol") // no model has one
	}
	b = appendOpen(b, name)
	if n.kind == kindString {
		b = appendXMLText(b, *stringAt(p))
	} else {
		b = n.appendText(b, p, format, "") // has nothing to escape
	}
	return appendClose(b, name)
}

func (n *node) appendList(b []byte, p unsafe.Pointer, name string, flat bool) []byte {
	elem := n.elemName
	if flat {
		elem = orElse(n.shape.Member.LocationName, name)
	} else {
		b = appendOpen(b, name)
	}
	for i := range lenAt(p) {
		b = n.elem.appendElement(b, n.index(p, i), elem, false, "")
	}
	if !flat {
		b = appendClose(b, name)
	}
	return b
}

func (n *node) appendMap(b []byte, p unsafe.Pointer, name string, flat bool) []byte {
	entry := "entry"
	if flat {
		entry = name
	} else {
		b = appendOpen(b, name)
	}
	for it := n.value(p).MapRange(); it.Next(); {
		b = appendOpen(b, entry)
		b = appendOpen(b, n.keyName)
		b = appendXMLText(b, it.Key().String())
		b = appendClose(b, n.keyName)
		b = n.elem.appendElement(b, addressable(it.Value()), n.valName, false, "")
		b = appendClose(b, entry)
	}
	if !flat {
		b = appendClose(b, name)
	}
	return b
}

// appendXMLText appends s escaped. What XML 1.0 cannot carry becomes U+FFFD.
func appendXMLText(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		var esc string
		switch {
		case r == '&':
			esc = "&amp;"
		case r == '<':
			esc = "&lt;"
		case r == '>':
			esc = "&gt;"
		case r == '"':
			esc = "&quot;"
		case r == '\t':
			esc = "&#x9;"
		case r == '\n':
			esc = "&#xA;"
		case r == '\r':
			esc = "&#xD;"
		case r < ' ', r == 0xfffe, r == 0xffff, r == utf8.RuneError && size == 1:
			esc = "\ufffd"
		default:
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		b = append(b, esc...)
		i += size
		start = i
	}
	return append(b, s[start:]...)
}
