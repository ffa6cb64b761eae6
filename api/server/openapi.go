package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/api/wire"
)

// object is a JSON object of the document. encoding/json writes its keys in order, so the document is always the same.
type object = map[string]any

func (s *Server) serveOpenAPI(x *exchange) {
	doc, err := s.openapi()
	if err != nil {
		s.log.Error("describe the REST API", "requestId", x.id, "error", err)
		x.plain(http.StatusInternalServerError, "InternalFailure", "The description could not be made. The request id leads to the reason in the log.")
		return
	}
	x.write(http.StatusOK, "application/json", doc)
}

// newOpenAPI returns the function that makes the OpenAPI 3.1 document, once, from the table and the models.
func (s *Server) newOpenAPI() func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		d := document{schemas: object{"Error": errorSchema}, paths: object{}}
		bound := slices.SortedFunc(maps.Values(s.services.byInput), func(a, b *binding) int {
			return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Name, b.Name))
		})
		for _, b := range bound {
			if err := d.add(b); err != nil {
				return nil, fmt.Errorf("describe %s: %w", b.Action(), err)
			}
		}
		for _, r := range s.resources {
			d.addResource(r)
		}
		return json.Marshal(object{
			"openapi": "3.1.0",
			"info": object{"title": "Neargate", "version": "v1",
				"description": "The operations of the AWS APIs, with the same JSON as the AWS operation, and what the platform shows beyond them. Requests are signed with AWS Signature Version 4 or carry HTTP Basic authentication with an access key id and its secret."},
			"servers":  []object{{"url": restPrefix}},
			"security": []object{{"sigv4": []string{}}, {"basic": []string{}}},
			"paths":    d.paths,
			"components": object{"schemas": d.schemas, "securitySchemes": object{
				"basic": object{"type": "http", "scheme": "basic"},
				"sigv4": object{"type": "apiKey", "in": "header", "name": "Authorization", "description": "AWS Signature Version 4"},
			}},
		})
	})
}

var errorSchema = object{"type": "object", "required": []string{"code", "message", "requestId"}, "properties": object{
	"code": object{"type": "string"}, "message": object{"type": "string"}, "requestId": object{"type": "string"}}}

type document struct{ paths, schemas object }

func (d *document) add(b *binding) error {
	codec, err := b.service.codec()
	if err != nil {
		return err
	}
	m := codec.Model().Operation(b.Name)
	in := codec.Model().Shape(m.Input)
	if in == nil {
		in = &model.Shape{Type: "structure"}
	}
	r := route{method: http.MethodPost, path: "/actions/" + b.Service + "/" + b.Name}
	if b.Route != "" {
		if r, err = parseRoute(b.Operation); err != nil {
			return err
		}
	}
	op := object{
		"operationId": b.Service + "." + b.Name,
		"tags":        []string{b.Service},
		"summary":     b.Action() + ", a " + b.Mode.String(),
		"responses": object{
			"200":     object{"description": "The operation's output.", "content": jsonContent(codec.Schema(m.Output, d.schemas))},
			"default": object{"description": "The operation was refused.", "content": jsonContent(object{"$ref": "#/components/schemas/Error"})},
		},
	}
	if b.Events != nil {
		op["responses"].(object)["200"] = object{"description": "A JSON object a line, as they come: of each its one member names the event.",
			"content": object{ndjson: object{"schema": object{"type": "object", "minProperties": 1, "maxProperties": 1}}}}
	}
	if b.Unsigned {
		op["security"] = []object{}
	}
	labels, params, err := d.labels(codec, in, r)
	if err != nil {
		return err
	}
	if r.method == http.MethodGet {
		params = append(params, d.query(codec, in, labels)...)
	} else {
		op["requestBody"] = object{"content": jsonContent(d.body(codec, m.Input, labels)), "required": r.method != http.MethodDelete && len(in.Required) > len(labels)}
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	item, _ := d.paths[r.path].(object)
	if item == nil {
		item = object{}
		d.paths[r.path] = item
	}
	item[strings.ToLower(r.method)] = op
	return nil
}

// labels are the input's members that stand in the path, and their parameters. Of a list, a path holds one element.
func (d *document) labels(codec *wire.Codec, in *model.Shape, r route) (labels []string, params []object, err error) {
	for _, l := range r.labels {
		i := slices.IndexFunc(in.Members, func(m model.Ref) bool { return strings.EqualFold(m.Name, l) })
		if i < 0 {
			return nil, nil, fmt.Errorf("the route's {%s} is no member of the input", l)
		}
		shape := in.Members[i].Shape
		if s := codec.Model().Shape(shape); s.Type == "list" {
			shape = s.Member.Shape
		}
		labels = append(labels, in.Members[i].Name)
		params = append(params, object{"name": l, "in": "path", "required": true, "schema": codec.Schema(shape, d.schemas)})
	}
	return labels, params, nil
}

// query are the parameters of a GET: the members that a query string can hold.
func (d *document) query(codec *wire.Codec, in *model.Shape, except []string) (params []object) {
	for _, m := range in.Members {
		s := codec.Model().Shape(m.Shape)
		if s.Type == "list" {
			s = codec.Model().Shape(s.Member.Shape)
		}
		if s.Type == "structure" || s.Type == "map" || s.Type == "list" || slices.Contains(except, m.Name) {
			continue
		}
		params = append(params, object{"name": m.Name, "in": "query", "required": slices.Contains(in.Required, m.Name), "schema": codec.Schema(m.Shape, d.schemas)})
	}
	return params
}

// body is the schema of a request's body: the input without the members that stand in the path.
func (d *document) body(codec *wire.Codec, input string, except []string) object {
	ref := codec.Schema(input, d.schemas)
	if len(except) == 0 || input == "" {
		return ref
	}
	whole := d.schemas[codec.SchemaName(input)].(object)
	part := maps.Clone(whole)
	part["properties"] = maps.Clone(whole["properties"].(object))
	for _, name := range except {
		maps.DeleteFunc(part["properties"].(object), func(k string, _ any) bool { return strings.EqualFold(k, name) })
	}
	if required, ok := whole["required"].([]string); ok {
		rest := slices.DeleteFunc(slices.Clone(required), func(k string) bool {
			return slices.ContainsFunc(except, func(name string) bool { return strings.EqualFold(k, name) })
		})
		if delete(part, "required"); len(rest) > 0 {
			part["required"] = rest
		}
	}
	return part
}

func jsonContent(schema object) object { return object{"application/json": object{"schema": schema}} }
