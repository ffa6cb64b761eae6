package wire

import "github.com/seed-2f228079/neargate/api/model"

// SchemaName is the name of a shape's schema among an OpenAPI document's components.
func (c *Codec) SchemaName(shape string) string { return c.model.Service + "." + shape }

// Schema is the JSON Schema (2020-12, the dialect of OpenAPI 3.1) of what AppendJSON writes and DecodeJSON reads for a
// shape. Structures are references to "#/components/schemas/" + SchemaName; they and all they reach are added to
// components. An empty shape is an object without members.
func (c *Codec) Schema(shape string, components map[string]any) map[string]any {
	s := c.model.Shape(shape)
	if s == nil {
		return map[string]any{"type": "object"}
	}
	switch s.Type {
	case "structure":
		if s.Document {
			return map[string]any{} // anything
		}
		name := c.SchemaName(shape)
		if _, ok := components[name]; !ok {
			components[name] = nil // being made: recursive shapes come back here
			components[name] = c.structureSchema(s, components)
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	case "list":
		out := map[string]any{"type": "array", "items": c.Schema(s.Member.Shape, components)}
		limits(out, s, "minItems", "maxItems")
		return out
	case "map":
		out := map[string]any{"type": "object", "additionalProperties": c.Schema(s.Value.Shape, components)}
		if k := c.model.Shape(s.Key.Shape); k != nil && (k.Pattern != "" || k.Enum != nil || k.Min != nil || k.Max != nil) {
			out["propertyNames"] = c.Schema(s.Key.Shape, components)
		}
		limits(out, s, "minProperties", "maxProperties")
		return out
	}
	return scalarSchema(s)
}

func (c *Codec) structureSchema(s *model.Shape, components map[string]any) map[string]any {
	properties := map[string]any{}
	names := map[string]string{}
	for i := range s.Members {
		m := &s.Members[i]
		names[m.Name] = c.jsonName(m)
		properties[names[m.Name]] = c.Schema(m.Shape, components)
	}
	out := map[string]any{"type": "object", "properties": properties}
	if s.Union {
		out["minProperties"], out["maxProperties"] = 1, 1
	}
	if len(s.Required) > 0 {
		required := make([]string, len(s.Required))
		for i, r := range s.Required {
			required[i] = names[r]
		}
		out["required"] = required
	}
	return out
}

func scalarSchema(s *model.Shape) map[string]any {
	out := map[string]any{}
	switch s.Type {
	case "boolean":
		out["type"] = "boolean"
	case "integer":
		out["type"], out["format"] = "integer", "int32"
		limits(out, s, "minimum", "maximum")
	case "long":
		out["type"], out["format"] = "integer", "int64"
		limits(out, s, "minimum", "maximum")
	case "float", "double":
		out["type"], out["format"] = "number", s.Type
		limits(out, s, "minimum", "maximum")
	case "timestamp":
		if s.TimestampFormat == "" || s.TimestampFormat == "unixTimestamp" {
			out["type"], out["format"] = "number", "unix-time"
		} else {
			out["type"], out["format"] = "string", "date-time"
		}
	case "blob":
		out["type"], out["contentEncoding"] = "string", "base64"
	default:
		out["type"] = "string"
		limits(out, s, "minLength", "maxLength")
		if s.Enum != nil {
			out["enum"] = s.Enum
		}
		if p, ok := model.PortablePattern(s.Pattern); ok {
			out["pattern"] = p
		}
		if s.Sensitive {
			out["format"] = "password"
		}
	}
	return out
}

// limits adds a shape's bounds under the names its type has for them. Schema wants whole numbers whole.
func limits(out map[string]any, s *model.Shape, lowest, highest string) {
	add := func(name string, v *float64) {
		if v == nil {
			return
		}
		if whole := int64(*v); float64(whole) == *v {
			out[name] = whole
		} else {
			out[name] = *v
		}
	}
	add(lowest, s.Min)
	add(highest, s.Max)
}
