package secretsmanager

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// listSecrets implements secretsmanager:ListSecrets.
func (f *Family) listSecrets(ctx context.Context, in *sm.ListSecretsInput) (*sm.ListSecretsOutput, error) {
	if err := checkFilters(in.Filters); err != nil {
		return nil, err
	}
	if in.SortBy == types.SortByTypeLastAccessedDate {
		return nil, invalidParameter("'SortBy' %s is not supported by this platform: accesses are not recorded.", in.SortBy)
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	order := func(s *Secret) string { // ends with the name, so that no two are equal
		switch in.SortBy {
		case types.SortByTypeName:
			return s.Name
		case types.SortByTypeLastChangedDate:
			return s.Changed.AsTime().Format(sortable) + " " + s.Name
		}
		return s.Created.AsTime().Format(sortable) + " " + s.Name
	}
	var found []*Secret
	for s := range Secrets.Scan(v, scope.Key()) {
		if (s.Deleted == nil || aws.ToBool(in.IncludePlannedDeletion)) && matches(v, s, in.Filters) {
			found = append(found, s)
		}
	}
	after, err := f.Pages.Place(ctx, in)
	if err != nil {
		return nil, err
	}
	compare := func(a, b string) int { return cmp.Compare(b, a) } // newest first
	if in.SortOrder == types.SortOrderTypeAsc || in.SortOrder == "" && in.SortBy == types.SortByTypeName {
		compare = cmp.Compare[string]
	}
	slices.SortFunc(found, func(a, b *Secret) int { return compare(order(a), order(b)) })
	out, size := &sm.ListSecretsOutput{SecretList: []types.SecretListEntry{}}, api.PageSize(in.MaxResults, 100, 100)
	last := ""
	for _, s := range found {
		if after != "" && compare(order(s), after) <= 0 {
			continue
		}
		if len(out.SecretList) == size {
			out.NextToken = f.Pages.TokenAt(ctx, in, last)
			break
		}
		out.SecretList, last = append(out.SecretList, entry(v, s)), order(s)
	}
	return out, nil
}

const sortable = "2006-01-02T15:04:05.000000000Z"

func checkFilters(filters []types.Filter) error {
	for _, filter := range filters {
		if filter.Key == "" || len(filter.Values) == 0 {
			return invalidParameter("Invalid filter: it needs a key and values.")
		}
	}
	return nil
}

// matches: all filters hold, each by one of its values. A value is a prefix of what it is held against, in the case in which it is
// written for a name or a tag; ! in front says which do not have it.
func matches(r state.Reader, s *Secret, filters []types.Filter) bool {
	for _, filter := range filters {
		texts, fold := texts(r, s, filter.Key)
		if !slices.ContainsFunc(filter.Values, func(want string) bool {
			want, not := strings.CutPrefix(want, "!")
			return slices.ContainsFunc(texts, func(have string) bool {
				if fold {
					have, want = strings.ToLower(have), strings.ToLower(want)
				}
				if filter.Key == types.FilterNameStringTypeDescription || filter.Key == types.FilterNameStringTypeAll {
					return strings.Contains(have, want) // words anywhere
				}
				return strings.HasPrefix(have, want)
			}) != not
		}) {
			return false
		}
	}
	return true
}

func texts(r state.Reader, s *Secret, key types.FilterNameStringType) (list []string, fold bool) {
	tags := controlplane.TagsOf(r, s.scope(), s.ARN())
	add := func(k types.FilterNameStringType, texts ...string) {
		if key == k || key == types.FilterNameStringTypeAll {
			list = append(list, texts...)
		}
	}
	add(types.FilterNameStringTypeName, s.Name)
	add(types.FilterNameStringTypeDescription, s.Description)
	for k, v := range tags {
		add(types.FilterNameStringTypeTagKey, k)
		add(types.FilterNameStringTypeTagValue, v)
	}
	if key == types.FilterNameStringTypePrimaryRegion {
		list = append(list, s.Region)
	}
	return list, key == types.FilterNameStringTypeDescription || key == types.FilterNameStringTypeAll
}

// batchGetSecretValue implements secretsmanager:BatchGetSecretValue. Whom the caller may read is asked secret by secret, as the service
// does: those it may not are among the errors.
func (f *Family) batchGetSecretValue(ctx context.Context, in *sm.BatchGetSecretValueInput) (*sm.BatchGetSecretValueOutput, error) {
	switch {
	case len(in.SecretIdList) > 0 && len(in.Filters) > 0:
		return nil, invalidParameter("Either 'SecretIdList' or 'Filters' must be provided, but not both.")
	case len(in.SecretIdList) == 0 && len(in.Filters) == 0:
		return nil, invalidParameter("Either 'SecretIdList' or 'Filters' must be provided.")
	case len(in.SecretIdList) > 0 && in.MaxResults != nil:
		return nil, invalidParameter("You can't use 'MaxResults' with 'SecretIdList'.")
	}
	if err := checkFilters(in.Filters); err != nil {
		return nil, err
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	ids, next := in.SecretIdList, (*string)(nil)
	if len(in.Filters) > 0 {
		if ids, next, err = f.filtered(ctx, v, scope, in); err != nil {
			return nil, err
		}
	}
	out := &sm.BatchGetSecretValueOutput{NextToken: next, SecretValues: []types.SecretValueEntry{}, Errors: []types.APIErrorType{}}
	for _, id := range ids {
		e, err := f.readAs(ctx, v, scope, id)
		if failure, ok := awserr.As(err); ok {
			out.Errors = append(out.Errors, types.APIErrorType{SecretId: &id, ErrorCode: &failure.Code, Message: &failure.Message})
		} else if err != nil {
			return nil, err
		} else {
			out.SecretValues = append(out.SecretValues, e)
		}
	}
	return out, nil
}

// readAs reads a secret if the caller may.
func (f *Family) readAs(ctx context.Context, v *state.View, scope controlplane.Scope, id string) (types.SecretValueEntry, error) {
	if s, err := find(v, scope, id); err == nil && f.Authorizer != nil {
		access := api.Access{Action: "secretsmanager:GetSecretValue", Resources: []string{s.ARN()}}
		if err := f.Authorizer.Authorize(ctx, api.CallFrom(ctx), access); err != nil {
			return types.SecretValueEntry{}, awserr.New("AccessDeniedException", "%s", err.Error())
		}
	}
	return f.read(v, scope, &id, nil, nil)
}

func (f *Family) filtered(ctx context.Context, v *state.View, scope controlplane.Scope, in *sm.BatchGetSecretValueInput) ([]string, *string, error) {
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 20, 20), func(after state.Key) iter.Seq[*Secret] {
		return func(yield func(*Secret) bool) {
			for s := range Secrets.ScanFrom(v, scope.Key(), after) {
				if s.Deleted == nil && matches(v, s, in.Filters) && !yield(s) {
					return
				}
			}
		}
	}, Secrets.Key)
	var ids []string
	for _, s := range page {
		ids = append(ids, s.ARN())
	}
	return ids, next, err
}
