package ssm

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// filter is one that a request names, checked.
type filter struct {
	key, option string
	values      []string
}

type filters []filter

// options are those that a filter's key takes; the first is the default.
func options(key string) []string {
	switch {
	case key == "Path":
		return []string{"OneLevel", "Recursive"}
	case key == "Name":
		return []string{"Equals", "BeginsWith", "Contains"}
	}
	return []string{"Equals", "BeginsWith"}
}

// compile checks filters; keys are those that the operation takes.
func compile(given []types.ParameterStringFilter, keys ...string) (filters, error) {
	var list filters
	for _, g := range given {
		f := filter{key: aws.ToString(g.Key), option: aws.ToString(g.Option), values: g.Values}
		known := slices.Contains(keys, f.key) || strings.HasPrefix(f.key, "tag:") && slices.Contains(keys, "tag:")
		allowed := options(f.key)
		if f.option == "" {
			f.option = allowed[0]
		}
		switch {
		case !known:
			return nil, awserr.New("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [%s].", f.key, strings.Join(keys, ", "))
		case !slices.Contains(allowed, f.option):
			return nil, awserr.New("InvalidFilterOption", "The following filter option is not valid: %s. Valid options include: [%s].", f.option, strings.Join(allowed, ", "))
		case len(f.values) == 0 && !strings.HasPrefix(f.key, "tag:"):
			return nil, awserr.New("InvalidFilterValue", "The following filter values are missing for filter key %s.", f.key)
		case f.key == "Path" && slices.ContainsFunc(f.values, func(v string) bool { return !strings.HasPrefix(v, "/") }):
			return nil, validation("The parameter doesn't meet the parameter name requirements. A path must begin with a forward slash \"/\".")
		case slices.ContainsFunc(list, func(l filter) bool { return l.key == f.key }):
			return nil, awserr.New("InvalidFilterKey", "A filter key can be used only once: %s.", f.key)
		}
		list = append(list, f)
	}
	return list, nil
}

// version is the one that the filters are about: that of a label, or the newest one.
func (list filters) version(r state.Reader, p *Parameter) *ParameterVersion {
	for _, f := range list {
		if f.key == "Label" {
			for _, label := range f.values {
				if v := labelled(r, p, label); v != nil {
					return v
				}
			}
			return nil
		}
	}
	v, _ := p.at(r, p.Version)
	return v
}

// meets says whether every filter holds for the parameter, each by one of its values.
func (f *Family) meets(r state.Reader, p *Parameter, list filters) bool {
	v := list.version(r, p)
	if v == nil {
		return false
	}
	for _, l := range list {
		have, ok := "", true
		switch l.key {
		case "Label":
			continue
		case "Name", "Path":
			have = p.Name
		case "Type":
			have = v.Type
		case "KeyId":
			have = v.KeyId
		case "Tier":
			have = v.Tier
		case "DataType":
			have = dataType
		default:
			have, ok = controlplane.TagsOf(r, p.scope(), p.ARN())[strings.TrimPrefix(l.key, "tag:")]
		}
		if !ok || len(l.values) > 0 && !slices.ContainsFunc(l.values, func(want string) bool { return l.holds(have, want) }) {
			return false
		}
	}
	return true
}

func (l filter) holds(have, want string) bool {
	if l.key == "Name" { // with and without the slash in front, as the console and the API show names
		have, want = strings.TrimPrefix(have, "/"), strings.TrimPrefix(want, "/")
	}
	switch l.option {
	case "BeginsWith":
		return strings.HasPrefix(have, want)
	case "Contains":
		return strings.Contains(have, want)
	case "OneLevel", "Recursive":
		return below(have, want, l.option == "Recursive")
	}
	return have == want
}

// describeParameters implements ssm:DescribeParameters. It shows no values.
func (f *Family) describeParameters(ctx context.Context, in *ssm.DescribeParametersInput) (*ssm.DescribeParametersOutput, error) {
	given := in.ParameterFilters
	if len(in.Filters) > 0 && len(given) > 0 {
		return nil, validation("You can use either Filters or ParameterFilters in a single request.")
	}
	for _, old := range in.Filters { // which ParameterFilters replace: a name's beginning
		option := "Equals"
		if old.Key == types.ParametersFilterKeyName {
			option = "BeginsWith"
		}
		given = append(given, types.ParameterStringFilter{Key: new(string(old.Key)), Option: &option, Values: old.Values})
	}
	list, err := compile(given, "Name", "Path", "Type", "KeyId", "Tier", "DataType", "tag:")
	if err != nil {
		return nil, err
	}
	r, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(p *Parameter) bool { return !aws.ToBool(in.Shared) && f.meets(r, p, list) } // nothing is shared between accounts
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 50, 50), parameters(r, scope, wanted), Parameters.Key)
	if err != nil {
		return nil, err
	}
	out := &ssm.DescribeParametersOutput{Parameters: []types.ParameterMetadata{}, NextToken: next}
	for _, p := range page {
		out.Parameters = append(out.Parameters, metadata(r, p))
	}
	return out, nil
}

func metadata(r state.Reader, p *Parameter) types.ParameterMetadata {
	v, _ := p.at(r, p.Version)
	m := types.ParameterMetadata{Name: &p.Name, ARN: new(p.ARN()), Type: types.ParameterType(v.Type), Version: v.Version, Tier: types.ParameterTier(v.Tier),
		LastModifiedDate: new(v.Modified.AsTime()), LastModifiedUser: &v.ModifiedBy, DataType: new(dataType), Policies: []types.ParameterInlinePolicy{}}
	m.Description, m.AllowedPattern, m.KeyId = given(v.Description), given(v.AllowedPattern), given(v.KeyId)
	return m
}
