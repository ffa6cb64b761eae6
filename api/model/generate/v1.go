package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-2f228079/neargate/api/model"
)

// The part of api-2.json that is facts we use.
type (
	v1Model struct {
		Metadata struct {
			APIVersion, EndpointPrefix, JSONVersion, Protocol, ServiceID, SigningName, TargetPrefix, XMLNamespace string
		}
		Operations map[string]v1Operation
		Shapes     map[string]v1Shape
	}
	v1Operation struct {
		HTTP struct {
			Method, RequestURI string
			ResponseCode       int
		}
		Input, Output *struct{ Shape, ResultWrapper string }
		Errors        []struct{ Shape string }
	}
	v1Shape struct {
		model.Shape
		Members v1Members `json:"members"`
	}
)

// v1Members keeps the members in the model's order, which is the order services answer in.
type v1Members []model.Ref

func (m *v1Members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		r := model.Ref{}
		if err := d.Decode(&r); err != nil {
			return err
		}
		r.Name = name.(string)
		*m = append(*m, r)
	}
	return nil
}

// readV1 reads the newest version of a service's model.
func readV1(module, folder string) (*table, error) {
	versions, err := filepath.Glob(filepath.Join(module, "models", "apis", folder, "*", "api-2.json"))
	if err != nil || len(versions) == 0 {
		return nil, fmt.Errorf("no model in %s/models/apis/%s: %w", module, folder, err)
	}
	b, err := os.ReadFile(versions[len(versions)-1]) // Glob sorts; versions are dates
	if err != nil {
		return nil, err
	}
	var m v1Model
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	md := m.Metadata
	t := &table{
		meta: model.Metadata{
			ServiceID: md.ServiceID, Protocol: md.Protocol, JSONVersion: md.JSONVersion, TargetPrefix: md.TargetPrefix,
			SigningName: cmp.Or(md.SigningName, md.EndpointPrefix), EndpointPrefix: md.EndpointPrefix,
			APIVersion: md.APIVersion, XMLNamespace: md.XMLNamespace,
		},
		ops:    map[string]*model.Operation{},
		shapes: map[string]*model.Shape{},
	}
	for name, o := range m.Operations {
		op := &model.Operation{Method: o.HTTP.Method, URI: o.HTTP.RequestURI, Status: o.HTTP.ResponseCode}
		if o.Input != nil {
			op.Input = o.Input.Shape
		}
		if o.Output != nil {
			op.Output, op.ResultWrapper = o.Output.Shape, o.Output.ResultWrapper
		}
		for _, e := range o.Errors {
			op.Errors = append(op.Errors, e.Shape)
		}
		t.ops[name] = op
	}
	for name, s := range m.Shapes {
		shape := s.Shape
		shape.Members = s.Members
		t.shapes[name] = &shape
	}
	return t, nil
}
