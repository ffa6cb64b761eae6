package api_test

import (
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/seal"
)

func newSealer(t *testing.T) api.Sealer {
	t.Helper()
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	s, err := seal.New(key, "page-token")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func call(account, region, operation string) context.Context {
	return api.WithCall(context.Background(), &api.Call{
		Identity: api.Identity{Account: account}, Region: region, Service: "ecs", Operation: operation})
}

// listing is a key-ordered table that can change between pages.
type listing []string

func (l listing) scan(after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, k := range l {
			if k > after && !yield(k) {
				return
			}
		}
	}
}

func self(s string) string { return s }

func TestPagesSurviveChanges(t *testing.T) {
	pages, ctx := api.NewPages(newSealer(t)), call("000000000000", "us-east-1", "ListServices")
	rows := listing{"a", "b", "c", "d", "e"}
	in := &ecs.ListServicesInput{LaunchType: types.LaunchTypeFargate}
	var got []string
	for {
		page, next, err := api.Page(ctx, pages, in, 2, rows.scan, self)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if next == nil {
			break
		}
		in.NextToken, in.MaxResults = next, new(int32(2))                  // the page size may change
		rows = slices.DeleteFunc(slices.Clone(rows), func(s string) bool { // what was seen goes away
			return s == page[len(page)-1]
		})
	}
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("pages gave %v, want %v", got, want)
	}
}

func TestEmptyPageIsAList(t *testing.T) {
	page, next, err := api.Page(call("0", "r", "ListServices"), api.NewPages(newSealer(t)), &ecs.ListServicesInput{}, 2, listing{}.scan, self)
	if err != nil || page == nil || len(page) != 0 || next != nil {
		t.Errorf("got %#v, %v, %v; want an empty list", page, next, err)
	}
}

func TestLastFullPageHasNoToken(t *testing.T) {
	page, next, err := api.Page(call("0", "r", "ListServices"), api.NewPages(newSealer(t)), &ecs.ListServicesInput{}, 2, listing{"a", "b"}.scan, self)
	if err != nil || len(page) != 2 || next != nil {
		t.Errorf("got %v, %v, %v; want two items and no token", page, next, err)
	}
}

func TestForeignTokensAreRefused(t *testing.T) {
	pages, home := api.NewPages(newSealer(t)), call("000000000000", "us-east-1", "ListServices")
	rows := listing{"a", "b", "c"}
	ask := func(p *api.Pages, ctx context.Context, in *ecs.ListServicesInput) (*string, error) {
		_, next, err := api.Page(ctx, p, in, 1, rows.scan, self)
		return next, err
	}
	token, err := ask(pages, home, &ecs.ListServicesInput{Cluster: new("one")})
	if err != nil || token == nil {
		t.Fatalf("first page: %v, %v", token, err)
	}
	if _, err := ask(pages, home, &ecs.ListServicesInput{Cluster: new("one"), NextToken: token}); err != nil {
		t.Fatalf("its own token: %v", err)
	}
	tampered := "A" + (*token)[1:]
	if tampered == *token {
		tampered = "B" + (*token)[1:]
	}
	for name, try := range map[string]func() (*string, error){
		"other account": func() (*string, error) {
			return ask(pages, call("111111111111", "us-east-1", "ListServices"), &ecs.ListServicesInput{Cluster: new("one"), NextToken: token})
		},
		"other region": func() (*string, error) {
			return ask(pages, call("000000000000", "eu-west-1", "ListServices"), &ecs.ListServicesInput{Cluster: new("one"), NextToken: token})
		},
		"other operation": func() (*string, error) {
			return ask(pages, call("000000000000", "us-east-1", "ListTasks"), &ecs.ListServicesInput{Cluster: new("one"), NextToken: token})
		},
		"other filter": func() (*string, error) {
			return ask(pages, home, &ecs.ListServicesInput{Cluster: new("two"), NextToken: token})
		},
		"other key": func() (*string, error) {
			return ask(api.NewPages(newSealer(t)), home, &ecs.ListServicesInput{Cluster: new("one"), NextToken: token})
		},
		"tampered": func() (*string, error) {
			return ask(pages, home, &ecs.ListServicesInput{Cluster: new("one"), NextToken: &tampered})
		},
		"an offset":  func() (*string, error) { return ask(pages, home, &ecs.ListServicesInput{NextToken: new("1")}) },
		"not base64": func() (*string, error) { return ask(pages, home, &ecs.ListServicesInput{NextToken: new("{}")}) },
	} {
		if _, err := try(); !awserr.Is(err, "InvalidParameterException") {
			t.Errorf("%s: got %v, want InvalidParameterException", name, err)
		}
	}
}
