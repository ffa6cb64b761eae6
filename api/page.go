package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"slices"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Sealer encrypts and authenticates small values; internal/seal's is one. bound is authenticated, not kept: Open fails
// unless it is given the same.
type Sealer interface {
	Seal(plain, bound []byte) []byte
	Open(sealed, bound []byte) ([]byte, error)
}

// Pages makes and reads the page tokens of every listing. A token is the last key of its page, sealed, and bound to
// service, operation, account, region and filter. It is never an offset, so what is created or deleted between two pages
// neither repeats nor hides another item; and a client can neither read nor forge it, nor carry it elsewhere.
type Pages struct{ seal Sealer }

// NewPages returns the mechanism over the cluster's sealing key.
func NewPages(s Sealer) *Pages { return &Pages{s} }

// Page returns the page of at most limit items that in asks for, never nil, and the token of the next one: nil when there is none.
//
// in is the operation's input; its token member is NextToken or Marker, and every other member but the page size is part
// of the filter. scan yields, in ascending order of key, the items whose key is greater than after ("" starts at the
// beginning); the caller filters inside it.
func Page[K ~string, T any](ctx context.Context, p *Pages, in any, limit int, scan func(after K) iter.Seq[T], key func(T) K) ([]T, *string, error) {
	if limit <= 0 {
		panic(fmt.Sprintf("api: page of %d items", limit))
	}
	c := CallFrom(ctx)
	token, bound := pageFilter(c, in)
	var after K
	if token != nil && *token != "" {
		k, err := p.open(*token, bound)
		if err != nil {
			return nil, nil, invalidToken(c.Service)
		}
		after = K(k)
	}
	page := []T{} // to clients an empty list is another thing than none
	for item := range scan(after) {
		if len(page) == limit {
			next := p.token(string(key(page[limit-1])), bound)
			return page, &next, nil
		}
		page = append(page, item)
	}
	return page, nil, nil
}

// Place is the place in its listing that the token of in stands for, "" without a token; TokenAt makes such a token. They are for
// listings that Page cannot cut: in another order than that of keys, or whose pages end where the work for one is done.
func (p *Pages) Place(ctx context.Context, in any) (string, error) {
	c := CallFrom(ctx)
	token, bound := pageFilter(c, in)
	if token == nil || *token == "" {
		return "", nil
	}
	place, err := p.open(*token, bound)
	if err != nil {
		return "", invalidToken(c.Service)
	}
	return place, nil
}

// TokenAt is the token that stands for place in the listing that in asks for.
func (p *Pages) TokenAt(ctx context.Context, in any, place string) *string {
	_, bound := pageFilter(CallFrom(ctx), in)
	token := p.token(place, bound)
	return &token
}

// PageSize is how many items asked asks for: fallback when it is absent, never more than most.
func PageSize(asked *int32, fallback, most int) int {
	if asked == nil || *asked <= 0 {
		return fallback
	}
	return min(int(*asked), most)
}

// PageWithin is PageSize for inputs of which the model says no bounds, only the documentation: false for any other number than 1 to most.
func PageWithin(asked *int32, fallback, most int) (size int, ok bool) {
	return PageSize(asked, fallback, most), asked == nil || 1 <= *asked && int(*asked) <= most
}

func (p *Pages) token(last string, bound []byte) string {
	return base64.RawURLEncoding.EncodeToString(p.seal.Seal([]byte(last), bound))
}

func (p *Pages) open(token string, bound []byte) (string, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", err
	}
	last, err := p.seal.Open(sealed, bound)
	return string(last), err
}

// Members that may differ between two pages of one listing.
var pageMembers = []string{"NextToken", "Marker", "MaxResults", "MaxItems", "MaxRecords", "PageSize", "Limit"}

// pageFilter is the token of in and a digest of what that token is bound to.
func pageFilter(c *Call, in any) (token *string, bound []byte) {
	v := reflect.ValueOf(in).Elem()
	filter := reflect.New(v.Type()).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case !f.IsExported():
		case slices.Contains(pageMembers, f.Name):
			if t, ok := v.Field(i).Interface().(*string); ok {
				token = t
			}
		default:
			filter.Field(i).Set(v.Field(i))
		}
	}
	text, err := json.Marshal([]any{"page", c.Service, c.Operation, c.Account, c.Region, filter.Interface()})
	if err != nil {
		panic(fmt.Sprintf("api: describe filter of %s: %v", c.Operation, err)) // inputs are plain data
	}
	sum := sha256.Sum256(text)
	return token, sum[:]
}

// invalidToken is how each service says that a token is not one of its own for this request.
func invalidToken(service string) error {
	switch service {
	case "ec2":
		return awserr.New("InvalidNextToken", "The specified NextToken is not valid.")
	case "autoscaling":
		return awserr.New("InvalidNextToken", "The NextToken value is not valid.")
	case "applicationautoscaling":
		return awserr.New("InvalidNextTokenException", "The next token supplied was invalid.")
	case "elasticloadbalancingv2", "iam":
		return awserr.WithStatus(400, "ValidationError", "Invalid marker.")
	case "servicediscovery":
		return awserr.New("InvalidInput", "Invalid NextToken.")
	case "cloudwatchlogs":
		return awserr.New("InvalidParameterException", "The specified nextToken is invalid.")
	case "secretsmanager":
		return awserr.New("InvalidNextTokenException", "The NextToken value is invalid.")
	case "ssm":
		return awserr.New("InvalidNextToken", "The specified token is not valid.")
	}
	return awserr.New("InvalidParameterException", "Invalid nextToken.")
}
