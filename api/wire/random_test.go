package wire

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"
	"unsafe"

	ecsdocument "github.com/aws/aws-sdk-go-v2/service/ecs/document"
)

// generator makes random values that a plan can carry, constraints aside. In XML and queries some things cannot be told
// apart; it then makes only those that can.
type generator struct {
	*rand.Rand
	protocol Protocol
	input    bool // for a request; the SDK's serializers leave out some empty values
	left     int  // values still to make, so that recursive and huge shapes end
}

var texts = []string{"a", "web", "users/api", "ünï-©ode ✓ 😀", "<a href=\"x\">&amp;</a>", `quote " back\slash`, "tab\tnew\nline", "1.5", "true", " pad ", "a,b"}

func (g *generator) fill(n *node, p unsafe.Pointer, depth int) {
	g.left--
	switch n.kind {
	case kindString:
		if len(n.shape.Enum) > 0 {
			*stringAt(p) = n.shape.Enum[g.IntN(len(n.shape.Enum))]
			return
		}
		*stringAt(p) = texts[g.IntN(len(texts))]
	case kindBool:
		*boolAt(p) = g.IntN(2) == 0
	case kindInt:
		*intAt(p) = int32(g.Uint32())
	case kindLong:
		*longAt(p) = int64(g.Uint64())
	case kindFloat:
		*floatAt(p) = float32(g.IntN(1000)) / 8
	case kindDouble:
		*doubleAt(p) = g.NormFloat64()
	case kindTime:
		// Milliseconds are what AWS keeps; HTTP dates and the clients' query dates keep less.
		*timeAt(p) = time.UnixMilli(g.Int64N(4e12)).UTC()
	case kindBlob:
		b := make([]byte, 1+g.IntN(20))
		for i := range b {
			b[i] = byte(g.Uint32())
		}
		*bytesAt(p) = b
	case kindStruct:
		g.fillStruct(n, p, depth)
	case kindList:
		makeEmpty(p)
		for range g.size(depth) {
			g.fill(n.elem, n.push(p), depth+1)
		}
	case kindMap:
		m := reflect.MakeMap(n.typ)
		for i := range g.size(depth) {
			v := reflect.New(n.elem.typ)
			g.fill(n.elem, pointee(v), depth+1)
			key := fmt.Sprintf("k%d %s", i, texts[g.IntN(len(texts))])
			if n.key.enum != nil {
				key = n.key.shape.Enum[g.IntN(len(n.key.shape.Enum))]
			}
			m.SetMapIndex(reflect.ValueOf(key).Convert(n.typ.Key()), v.Elem())
		}
		n.value(p).Set(m)
	case kindUnion:
		v := &n.variants[g.IntN(len(n.variants))]
		val := reflect.New(v.typ)
		g.fill(v.node, v.make(pointee(val), &allocator{}), depth+1)
		n.value(p).Set(val)
	case kindDocument:
		n.value(p).Set(reflect.ValueOf(ecsdocument.NewLazyDocument(map[string]any{"a": []any{"b", true}})))
	}
}

// size is that of a list or map: empty ones too, where the protocol can say so.
func (g *generator) size(depth int) int {
	if g.left <= 0 || depth > 6 {
		return 1 // one, and nothing optional in it
	}
	if g.protocol == JSON || !g.input {
		return g.IntN(4)
	}
	return 1 + g.IntN(3)
}

func (g *generator) fillStruct(n *node, p unsafe.Pointer, depth int) {
	for i := range n.fields {
		f := &n.fields[i]
		if f.ref.Location != "" {
			continue
		}
		wanted := n.requires(f) || !f.ptr && f.node.kind <= kindDouble && f.node.kind != kindString
		if !wanted && (g.left <= 0 || depth > 6 || g.IntN(3) == 0) {
			continue
		}
		if depth > 12 && f.node.kind >= kindStruct {
			continue // required and recursive: no finite value exists; the SDK's own check then refuses it
		}
		g.fill(f.node, f.make(p, &allocator{}), depth+1)
		if f.node.kind == kindString && strings.HasSuffix(f.name, "Region") {
			*stringAt(f.at(p)) = "us-west-2" // some clients sign for it
		}
	}
	// A structure without members set cannot be told from an absent one in a query.
	if g.input && g.protocol != JSON && depth > 0 && len(n.fields) > 0 && !anySet(n, p) {
		f := &n.fields[0]
		g.fill(f.node, f.make(p, &allocator{}), depth+1)
	}
}

func anySet(n *node, p unsafe.Pointer) bool {
	for i := range n.fields {
		if n.fields[i].isSet(p) {
			return true
		}
	}
	return false
}

// clearMetadata takes away what the SDK adds to an answer.
func clearMetadata(out any) {
	if f := reflect.ValueOf(out).Elem().FieldByName("ResultMetadata"); f.IsValid() {
		f.SetZero()
	}
}

func firstDifference(diff string) string {
	var lines []string
	for l := range strings.Lines(diff) {
		if strings.HasPrefix(l, "-") || strings.HasPrefix(l, "+") {
			lines = append(lines, strings.TrimRight(l, "\n"))
		}
	}
	if len(lines) > 6 {
		lines = lines[:6]
	}
	return strings.Join(lines, "\n")
}
