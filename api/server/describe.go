package server

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// addResource describes a resource of the REST API that is no AWS operation. Its schemas follow from its Go types.
func (d *document) addResource(r *resource) {
	var params []object
	for i := range r.In.NumField() {
		f := r.In.Field(i)
		p := object{"name": jsonName(f), "in": "query", "description": f.Tag.Get("doc"), "schema": typeSchema(f.Type)}
		if slices.ContainsFunc(r.route.labels, func(l string) bool { return strings.EqualFold(l, jsonName(f)) }) {
			p["in"], p["required"] = "path", true
		}
		params = append(params, p)
	}
	says := "The answer."
	schema := typeSchema(r.Out)
	switch {
	case r.Stream:
		says = "A JSON object a line, as they come."
	case r.Send != nil:
		says, schema = "Bytes.", object{"type": "string", "format": "binary"}
	}
	item, _ := d.paths[r.route.path].(object)
	if item == nil {
		item = object{}
		d.paths[r.route.path] = item
	}
	described := object{
		"operationId": r.binding.Service + "." + r.Name,
		"tags":        []string{r.binding.Service},
		"summary":     r.Action() + ", a " + r.Mode.String(),
		"description": r.Doc,
		"parameters":  params,
		"responses": object{
			"200":     object{"description": says, "content": object{(&answer{stream: r.Stream, bytes: r.Send != nil}).contentType(): object{"schema": schema}}},
			"default": object{"description": "The request was refused.", "content": jsonContent(object{"$ref": "#/components/schemas/Error"})},
		},
	}
	if r.Take != nil {
		taken := object{"type": "string", "format": "binary"}
		if r.Body != nil {
			taken = typeSchema(r.Body)
		}
		described["requestBody"] = object{"required": true, "content": object{r.contentType(): object{"schema": taken}}}
	}
	item[strings.ToLower(r.route.method)] = described
}

// typeSchema is how encoding/json writes a value of type t; nil for what resources do not use.
func typeSchema(t reflect.Type) object {
	if t == reflect.TypeFor[time.Time]() {
		return object{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Slice:
		if items := typeSchema(t.Elem()); items != nil {
			return object{"type": "array", "items": items}
		}
	case reflect.Struct:
		properties, required := object{}, []string{}
		for i := range t.NumField() {
			f := t.Field(i)
			p := typeSchema(f.Type)
			if p == nil {
				return nil
			}
			if says := f.Tag.Get("doc"); says != "" {
				p["description"] = says
			}
			properties[jsonName(f)] = p
			if !strings.Contains(f.Tag.Get("json"), ",omit") {
				required = append(required, jsonName(f))
			}
		}
		return object{"type": "object", "properties": properties, "required": required}
	}
	return nil
}
