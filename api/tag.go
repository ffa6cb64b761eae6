package api

import (
	"maps"
	"reflect"
)

// inputField is a member of an operation's input; invalid when it has none by that name.
func inputField(in any, name string) reflect.Value {
	v := reflect.Indirect(reflect.ValueOf(in))
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// RequestTags are the tags that a request brings: SDK inputs call them Tags, a list of Key and Value, or a map. EC2's have such a list for
// each kind of resource, in TagSpecifications.
func RequestTags(in any) map[string]string {
	list := inputField(in, "Tags")
	if specs := inputField(in, "TagSpecifications"); !list.IsValid() && specs.IsValid() && specs.Kind() == reflect.Slice {
		all := map[string]string{}
		for i := range specs.Len() {
			maps.Copy(all, RequestTags(specs.Index(i).Interface()))
		}
		return all
	}
	if !list.IsValid() {
		return nil
	}
	if m, ok := list.Interface().(map[string]string); ok {
		return m
	}
	tags := map[string]string{}
	for i := 0; list.Kind() == reflect.Slice && i < list.Len(); i++ {
		if key, ok := text(inputField(list.Index(i).Interface(), "Key")); ok {
			tags[key], _ = text(inputField(list.Index(i).Interface(), "Value"))
		}
	}
	return tags
}

func text(v reflect.Value) (string, bool) {
	v = reflect.Indirect(v)
	if v.Kind() != reflect.String {
		return "", false
	}
	return v.String(), true
}

// TagKeys are the keys of the tags that a request takes away; ok is false when that is not what it does.
func TagKeys(in any) (keys []string, ok bool) {
	f := inputField(in, "TagKeys")
	if !f.IsValid() {
		return nil, false
	}
	keys, ok = f.Interface().([]string)
	return keys, ok
}
