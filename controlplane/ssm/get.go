package ssm

import (
	"context"
	"encoding/base64"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// cutSelector splits NAME:VERSION or NAME:LABEL; an ARN has colons of its own.
func cutSelector(text string) (name, selector string) {
	from := 0
	if a, err := arn.Parse(text); err == nil {
		from = len(text) - len(a.Resource)
	}
	if i := strings.IndexByte(text[from:], ':'); i >= 0 {
		return text[:from+i], text[from+i+1:]
	}
	return text, ""
}

// selected finds a parameter and the version that is meant: the newest one, that of a number, or that which has a label.
func selected(r state.Reader, scope controlplane.Scope, text string) (*Parameter, *ParameterVersion, error) {
	name, selector := cutSelector(text)
	p, err := find(r, scope, name)
	if err != nil {
		return nil, nil, err
	}
	if selector == "" {
		v, _ := p.at(r, p.Version)
		return p, v, nil
	}
	if n, err := strconv.ParseInt(selector, 10, 64); err == nil {
		if v, ok := p.at(r, n); ok {
			return p, v, nil
		}
		return nil, nil, noVersion(name, n)
	}
	if v := labelled(r, p, selector); v != nil {
		return p, v, nil
	}
	return nil, nil, awserr.New("ParameterVersionLabelNotFound", "Systems Manager could not find label %s of %s. Verify the label and try again.", selector, name)
}

// labelled is the version that has the label; nil: none has.
func labelled(r state.Reader, p *Parameter, label string) *ParameterVersion {
	for v := range Versions.Scan(r, p.versions()) {
		if slices.Contains(v.Labels, label) {
			return v
		}
	}
	return nil
}

// value is the version's; without decryption a SecureString's is shown as it is kept.
func (f *Family) value(p *Parameter, v *ParameterVersion, decrypt *bool) (*string, error) {
	if v.Type == string(types.ParameterTypeSecureString) && !aws.ToBool(decrypt) {
		return new(base64.StdEncoding.EncodeToString(v.Sealed)), nil
	}
	text, err := f.open(p, v)
	return &text, err
}

func (f *Family) render(p *Parameter, v *ParameterVersion, selector string, decrypt *bool) (types.Parameter, error) {
	value, err := f.value(p, v, decrypt)
	shape := types.Parameter{Name: &p.Name, ARN: new(p.ARN()), Type: types.ParameterType(v.Type), Value: value, Version: v.Version,
		LastModifiedDate: new(v.Modified.AsTime()), DataType: new(dataType)}
	if selector != "" {
		shape.Selector = new(":" + selector)
	}
	return shape, err
}

// getParameter implements ssm:GetParameter.
func (f *Family) getParameter(ctx context.Context, in *ssm.GetParameterInput) (*ssm.GetParameterOutput, error) {
	r, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	p, v, err := selected(r, scope, aws.ToString(in.Name))
	if awserr.Is(err, "ParameterVersionLabelNotFound") {
		err = awserr.New("ParameterVersionNotFound", "%s", err.(*awserr.Error).Message)
	}
	if err != nil {
		return nil, err
	}
	_, selector := cutSelector(*in.Name)
	shape, err := f.render(p, v, selector, in.WithDecryption)
	if err != nil {
		return nil, err
	}
	return &ssm.GetParameterOutput{Parameter: &shape}, nil
}

// getParameters implements ssm:GetParameters: what is not found is listed apart.
func (f *Family) getParameters(ctx context.Context, in *ssm.GetParametersInput) (*ssm.GetParametersOutput, error) {
	r, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &ssm.GetParametersOutput{Parameters: []types.Parameter{}, InvalidParameters: []string{}}
	for i, name := range in.Names {
		if slices.Contains(in.Names[:i], name) {
			continue
		}
		p, v, err := selected(r, scope, name)
		if err != nil {
			out.InvalidParameters = append(out.InvalidParameters, name)
			continue
		}
		_, selector := cutSelector(name)
		shape, err := f.render(p, v, selector, in.WithDecryption)
		if err != nil {
			return nil, err
		}
		out.Parameters = append(out.Parameters, shape)
	}
	return out, nil
}

// getParametersByPath implements ssm:GetParametersByPath.
func (f *Family) getParametersByPath(ctx context.Context, in *ssm.GetParametersByPathInput) (*ssm.GetParametersByPathOutput, error) {
	path := aws.ToString(in.Path)
	if !strings.HasPrefix(path, "/") {
		return nil, validation("The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\". "+
			"It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). It must use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). Path: %s", path)
	}
	filters, err := compile(in.ParameterFilters, "Type", "KeyId", "Label")
	if err != nil {
		return nil, err
	}
	r, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(p *Parameter) bool {
		return below(p.Name, path, aws.ToBool(in.Recursive)) && f.meets(r, p, filters)
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 10, 10), parameters(r, scope, wanted), Parameters.Key)
	if err != nil {
		return nil, err
	}
	out := &ssm.GetParametersByPathOutput{Parameters: []types.Parameter{}, NextToken: next}
	for _, p := range page {
		v := filters.version(r, p)
		shape, err := f.render(p, v, "", in.WithDecryption)
		if err != nil {
			return nil, err
		}
		out.Parameters = append(out.Parameters, shape)
	}
	return out, nil
}

// below says whether a parameter is directly in the path, or deeper in it.
func below(name, path string, deep bool) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(path, "/")+"/")
	return ok && rest != "" && (deep || !strings.Contains(rest, "/"))
}

func parameters(r state.Reader, scope controlplane.Scope, wanted func(*Parameter) bool) func(state.Key) iter.Seq[*Parameter] {
	return func(after state.Key) iter.Seq[*Parameter] {
		return func(yield func(*Parameter) bool) {
			for p := range Parameters.ScanFrom(r, scope.Key(), after) {
				if wanted(p) && !yield(p) {
					return
				}
			}
		}
	}
}

// getParameterHistory implements ssm:GetParameterHistory.
func (f *Family) getParameterHistory(ctx context.Context, in *ssm.GetParameterHistoryInput) (*ssm.GetParameterHistoryOutput, error) {
	r, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := find(r, scope, aws.ToString(in.Name))
	if err != nil {
		return nil, err
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 50, 50), func(after state.Key) iter.Seq[*ParameterVersion] {
		return Versions.ScanFrom(r, p.versions(), after)
	}, Versions.Key)
	if err != nil {
		return nil, err
	}
	out := &ssm.GetParameterHistoryOutput{Parameters: []types.ParameterHistory{}, NextToken: next}
	for _, v := range page {
		value, err := f.value(p, v, in.WithDecryption)
		if err != nil {
			return nil, err
		}
		h := types.ParameterHistory{Name: &p.Name, Type: types.ParameterType(v.Type), Value: value, Version: v.Version, Labels: append([]string{}, v.Labels...), DataType: new(dataType),
			Tier: types.ParameterTier(v.Tier), LastModifiedDate: new(v.Modified.AsTime()), LastModifiedUser: &v.ModifiedBy, Policies: []types.ParameterInlinePolicy{}}
		h.Description, h.AllowedPattern, h.KeyId = given(v.Description), given(v.AllowedPattern), given(v.KeyId)
		out.Parameters = append(out.Parameters, h)
	}
	return out, nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
