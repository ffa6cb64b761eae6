package ssm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
)

// bench is the family over real state in memory.
type bench struct {
	*Family
	t   *testing.T
	clk *clock.Fake
}

func newBench(t *testing.T) *bench {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	pages, err := seal.New(key, "pages")
	if err != nil {
		t.Fatal(err)
	}
	values, err := seal.New(key, "ssm")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, clk: clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
	b.Family = New(Config{Store: statetest.New(t, append(append(state.Schema{}, controlplane.Schema...), Schema...)...), Rand: rand.Reader,
		Pages: api.NewPages(pages), Seal: values, Clock: b.clk, Log: slog.New(slog.DiscardHandler)})
	return b
}

func (b *bench) ctx() context.Context {
	return api.WithCall(b.t.Context(), &api.Call{Identity: api.System("000000000000"), Region: "us-east-1", Service: "ssm", Operation: "X", Time: b.clk.Now()})
}

// do is an operation that has to work.
func do[I, O any](b *bench, f func(context.Context, *I) (*O, error), in *I) *O {
	b.t.Helper()
	out, err := f(b.ctx(), in)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// refused is an operation that has to fail so, and not to say what the value is.
func refused[I, O any](b *bench, f func(context.Context, *I) (*O, error), in *I, code, message string) {
	b.t.Helper()
	_, err := f(b.ctx(), in)
	if e, ok := awserr.As(err); !ok || e.Code != code || !strings.Contains(e.Message, message) || strings.Contains(e.Message, "canary") {
		b.t.Errorf("%T: error %v, want %s: %s", *in, err, code, message)
	}
}

func (b *bench) put(name, value string, kind types.ParameterType) int64 {
	b.t.Helper()
	return do(b, b.putParameter, &ssm.PutParameterInput{Name: &name, Value: &value, Type: kind, Overwrite: new(true)}).Version
}

func (b *bench) get(name string) string {
	b.t.Helper()
	return *do(b, b.getParameter, &ssm.GetParameterInput{Name: &name, WithDecryption: new(true)}).Parameter.Value
}

func TestParameterIsReadByVersionLabelAndARN(t *testing.T) {
	b := newBench(t)
	for n := range 3 {
		if v := b.put("/app/key", fmt.Sprint("canary ", n+1), "SecureString"); v != int64(n+1) {
			t.Errorf("version %d, want %d", v, n+1)
		}
	}
	b.put("plain", "canary p", "String")
	do(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/app/key"), Labels: []string{"live"}, ParameterVersion: new(int64(2))})
	for name, want := range map[string]string{
		"/app/key": "canary 3", "/app/key:1": "canary 1", "/app/key:live": "canary 2", "plain": "canary p",
		"arn:aws:ssm:us-east-1:000000000000:parameter/app/key":      "canary 3",
		"arn:aws:ssm:us-east-1:000000000000:parameter/app/key:live": "canary 2",
		"arn:aws:ssm:us-east-1:000000000000:parameter/plain":        "canary p",
	} {
		if got := b.get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	p := do(b, b.getParameter, &ssm.GetParameterInput{Name: new("/app/key:1")}).Parameter
	if strings.Contains(*p.Value, "canary") || *p.Selector != ":1" || *p.ARN != "arn:aws:ssm:us-east-1:000000000000:parameter/app/key" {
		t.Errorf("without decryption: %s, %s", *p.ARN, *p.Selector)
	}
	refused(b, b.getParameter, &ssm.GetParameterInput{Name: new("/app/key:9")}, "ParameterVersionNotFound", "version 9")
	refused(b, b.getParameter, &ssm.GetParameterInput{Name: new("/app/key:nope")}, "ParameterVersionNotFound", "label nope")
	refused(b, b.getParameter, &ssm.GetParameterInput{Name: new("/app/none")}, "ParameterNotFound", "/app/none")
	refused(b, b.getParameter, &ssm.GetParameterInput{Name: new("arn:aws:ssm:us-east-1:111111111111:parameter/app/key")}, "ParameterNotFound", "")
	out := do(b, b.getParameters, &ssm.GetParametersInput{Names: []string{"/app/key:1", "nope", "plain", "/app/key:9"}, WithDecryption: new(true)})
	if len(out.Parameters) != 2 || !slices.Equal(out.InvalidParameters, []string{"nope", "/app/key:9"}) {
		t.Errorf("got %d parameters, invalid %v", len(out.Parameters), out.InvalidParameters)
	}
}

func TestPutParameterRefuses(t *testing.T) {
	b := newBench(t)
	put := func(change func(*ssm.PutParameterInput), code, message string) {
		t.Helper()
		in := &ssm.PutParameterInput{Name: new("/p"), Value: new("canary"), Type: "String"}
		change(in)
		refused(b, b.putParameter, in, code, message)
	}
	long := strings.Repeat("x", maxStandard+1)
	put(func(in *ssm.PutParameterInput) { in.Type = "" }, "ValidationException", "type is required")
	put(func(in *ssm.PutParameterInput) { in.Name = new("/aws/x") }, "ValidationException", "can't be prefixed")
	put(func(in *ssm.PutParameterInput) { in.Name = new("a/b") }, "ValidationException", "fully qualified")
	put(func(in *ssm.PutParameterInput) { in.Name = new("/a b") }, "ValidationException", "sub-paths")
	put(func(in *ssm.PutParameterInput) { in.Name = new(strings.Repeat("/a", 16)) }, "HierarchyLevelLimitExceededException", "15")
	put(func(in *ssm.PutParameterInput) { in.Name = new("/" + strings.Repeat("a", 1000)) }, "ValidationException", "too long")
	put(func(in *ssm.PutParameterInput) { in.Value = &long }, "ValidationException", "Standard tier")
	put(func(in *ssm.PutParameterInput) { in.Value, in.Tier = new(long+long), "Intelligent-Tiering" }, "ValidationException", "Advanced tier")
	put(func(in *ssm.PutParameterInput) { in.Value = new("") }, "ValidationException", "length greater than or equal to 1")
	put(func(in *ssm.PutParameterInput) { in.AllowedPattern = new("[0-9]+") }, "ParameterPatternMismatchException", "[0-9]+")
	put(func(in *ssm.PutParameterInput) { in.AllowedPattern = new("(") }, "InvalidAllowedPatternException", "(")
	put(func(in *ssm.PutParameterInput) { in.KeyId, in.Type = new("alias/mine"), "SecureString" }, "InvalidKeyId", "alias/mine")
	put(func(in *ssm.PutParameterInput) { in.DataType = new("aws:ec2:image") }, "ValidationException", "DataType")
	put(func(in *ssm.PutParameterInput) { in.Policies = new("[{}]") }, "InvalidPolicyTypeException", "Policies")
	put(func(in *ssm.PutParameterInput) {
		in.Overwrite, in.Tags = new(true), []types.Tag{{Key: new("k"), Value: new("v")}}
	}, "ValidationException", "tags and overwrite")
	b.put("/p", "canary", "String")
	put(func(*ssm.PutParameterInput) {}, "ParameterAlreadyExists", "already exists")
	put(func(in *ssm.PutParameterInput) { in.Overwrite, in.Type = new(true), "SecureString" }, "HierarchyTypeMismatchException", "String to SecureString")
	if out := do(b, b.putParameter, &ssm.PutParameterInput{Name: new("/p"), Value: &long, Tier: "Intelligent-Tiering", Overwrite: new(true)}); out.Tier != "Advanced" || out.Version != 2 {
		t.Errorf("put %+v", out)
	}
	put(func(in *ssm.PutParameterInput) { in.Overwrite, in.Tier = new(true), "Standard" }, "ValidationException", "downgrade")
}

func TestOldestVersionMakesRoomUnlessItHasALabel(t *testing.T) {
	b := newBench(t)
	for n := range maxVersions + 1 {
		b.put("/p", fmt.Sprint(n), "String")
	}
	h := do(b, b.getParameterHistory, &ssm.GetParameterHistoryInput{Name: new("/p")})
	if len(h.Parameters) != 50 || h.Parameters[0].Version != 2 || h.NextToken == nil {
		t.Errorf("the first page has %d versions from %d", len(h.Parameters), h.Parameters[0].Version)
	}
	h = do(b, b.getParameterHistory, &ssm.GetParameterHistoryInput{Name: new("/p"), NextToken: h.NextToken})
	if last := h.Parameters[len(h.Parameters)-1]; len(h.Parameters) != 50 || last.Version != maxVersions+1 || *last.Value != fmt.Sprint(maxVersions) || h.NextToken != nil {
		t.Errorf("the second page has %d versions to %d", len(h.Parameters), last.Version)
	}
	do(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/p"), Labels: []string{"keep"}, ParameterVersion: new(int64(2))})
	refused(b, b.putParameter, &ssm.PutParameterInput{Name: new("/p"), Value: new("x"), Overwrite: new(true)}, "ParameterMaxVersionLimitExceeded", "Version 2")
	// What is deleted is not found any more, and its versions go.
	do(b, b.deleteParameter, &ssm.DeleteParameterInput{Name: new("/p")})
	refused(b, b.getParameter, &ssm.GetParameterInput{Name: new("/p")}, "ParameterNotFound", "")
	b.put("/p", "new", "String")
	if err := b.clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range Versions.Scan(b.Store.View(), state.K()) {
		n++
	}
	if n != 1 || b.get("/p:1") != "new" {
		t.Errorf("%d versions are left, want the new parameter's one", n)
	}
}

func TestLabels(t *testing.T) {
	b := newBench(t)
	b.put("/p", "1", "String")
	b.put("/p", "2", "String")
	label := func(version int64, labels ...string) *ssm.LabelParameterVersionOutput {
		t.Helper()
		return do(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/p"), ParameterVersion: &version, Labels: labels})
	}
	if out := label(1, "live", "9x", "aws-x", "ok"); !slices.Equal(out.InvalidLabels, []string{"9x", "aws-x"}) {
		t.Errorf("invalid %v", out.InvalidLabels)
	}
	label(2, "live") // moves
	if b.get("/p:live") != "2" || b.get("/p:ok") != "1" {
		t.Error("labels are on the wrong versions")
	}
	for n := range maxLabels - 1 {
		label(2, fmt.Sprint("l", n))
	}
	refused(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/p"), Labels: []string{"more"}}, "ParameterVersionLabelLimitExceeded", "10")
	refused(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/p"), ParameterVersion: new(int64(7)), Labels: []string{"x"}}, "ParameterVersionNotFound", "7")
	out := do(b, b.unlabelParameterVersion, &ssm.UnlabelParameterVersionInput{Name: new("/p"), ParameterVersion: new(int64(1)), Labels: []string{"ok", "live"}})
	if !slices.Equal(out.RemovedLabels, []string{"ok"}) || !slices.Equal(out.InvalidLabels, []string{"live"}) {
		t.Errorf("got %+v", out)
	}
}

func TestByPathAndDescribe(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"/a/x", "/a/y", "/a/deep/z", "/ab/x", "flat"} {
		b.put(name, "canary "+name, "String")
	}
	b.put("/a/s", "canary", "SecureString")
	do(b, b.addTagsToResource, &ssm.AddTagsToResourceInput{ResourceType: "Parameter", ResourceId: new("/a/x"), Tags: []types.Tag{{Key: new("env"), Value: new("prod")}}})
	path := func(in ssm.GetParametersByPathInput) (names []string) {
		t.Helper()
		in.MaxResults = new(int32(1))
		for {
			out := do(b, b.getParametersByPath, &in)
			for _, p := range out.Parameters {
				names = append(names, *p.Name)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return names
			}
		}
	}
	filter := func(key, option string, values ...string) []types.ParameterStringFilter {
		f := types.ParameterStringFilter{Key: &key, Values: values}
		if option != "" {
			f.Option = &option
		}
		return []types.ParameterStringFilter{f}
	}
	do(b, b.labelParameterVersion, &ssm.LabelParameterVersionInput{Name: new("/a/y"), Labels: []string{"live"}})
	for _, c := range []struct {
		in   ssm.GetParametersByPathInput
		want []string
	}{
		{ssm.GetParametersByPathInput{Path: new("/a")}, []string{"/a/s", "/a/x", "/a/y"}},
		{ssm.GetParametersByPathInput{Path: new("/a/"), Recursive: new(true)}, []string{"/a/deep/z", "/a/s", "/a/x", "/a/y"}},
		{ssm.GetParametersByPathInput{Path: new("/a"), ParameterFilters: filter("Type", "", "SecureString")}, []string{"/a/s"}},
		{ssm.GetParametersByPathInput{Path: new("/"), Recursive: new(true), ParameterFilters: filter("Label", "", "live")}, []string{"/a/y"}},
	} {
		if got := path(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", *c.in.Path, got, c.want)
		}
	}
	refused(b, b.getParametersByPath, &ssm.GetParametersByPathInput{Path: new("a")}, "ValidationException", "forward slash")
	refused(b, b.getParametersByPath, &ssm.GetParametersByPathInput{Path: new("/a"), ParameterFilters: filter("Name", "", "x")}, "InvalidFilterKey", "Name")

	describe := func(filters []types.ParameterStringFilter) (names []string) {
		for _, p := range do(b, b.describeParameters, &ssm.DescribeParametersInput{ParameterFilters: filters}).Parameters {
			names = append(names, *p.Name)
		}
		return names
	}
	for _, c := range []struct {
		filters []types.ParameterStringFilter
		want    []string
	}{
		{nil, []string{"/a/deep/z", "/a/s", "/a/x", "/a/y", "/ab/x", "flat"}},
		{filter("Name", "Contains", "x"), []string{"/a/x", "/ab/x"}},
		{filter("Name", "BeginsWith", "a/"), []string{"/a/deep/z", "/a/s", "/a/x", "/a/y"}},
		{filter("Path", "Recursive", "/a"), []string{"/a/deep/z", "/a/s", "/a/x", "/a/y"}},
		{filter("Path", "", "/ab"), []string{"/ab/x"}},
		{filter("tag:env", "", "prod"), []string{"/a/x"}},
		{filter("tag:env", ""), []string{"/a/x"}},
		{filter("KeyId", "", "alias/aws/ssm"), []string{"/a/s"}},
		{filter("Tier", "", "Advanced"), nil},
	} {
		if got := describe(c.filters); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.filters, got, c.want)
		}
	}
	refused(b, b.describeParameters, &ssm.DescribeParametersInput{ParameterFilters: filter("Type", "Contains", "S")}, "InvalidFilterOption", "Contains")
	refused(b, b.describeParameters, &ssm.DescribeParametersInput{ParameterFilters: filter("Type", "")}, "InvalidFilterValue", "Type")
	old := do(b, b.describeParameters, &ssm.DescribeParametersInput{Filters: []types.ParametersFilter{{Key: "Name", Values: []string{"/a/"}}}})
	if len(old.Parameters) != 4 {
		t.Errorf("the older filters find %d", len(old.Parameters))
	}
	gone := do(b, b.deleteParameters, &ssm.DeleteParametersInput{Names: []string{"/a/x", "nobody", "/a/x"}})
	if !slices.Equal(gone.DeletedParameters, []string{"/a/x"}) || !slices.Equal(gone.InvalidParameters, []string{"nobody"}) {
		t.Errorf("deleted %v, invalid %v", gone.DeletedParameters, gone.InvalidParameters)
	}
}

func TestTags(t *testing.T) {
	b := newBench(t)
	do(b, b.putParameter, &ssm.PutParameterInput{Name: new("p"), Value: new("v"), Type: "String", Tags: []types.Tag{{Key: new("a"), Value: new("1")}}})
	do(b, b.addTagsToResource, &ssm.AddTagsToResourceInput{ResourceType: "Parameter", ResourceId: new("p"), Tags: []types.Tag{{Key: new("b"), Value: new("2")}}})
	do(b, b.removeTagsFromResource, &ssm.RemoveTagsFromResourceInput{ResourceType: "Parameter", ResourceId: new("p"), TagKeys: []string{"a"}})
	out := do(b, b.listTagsForResource, &ssm.ListTagsForResourceInput{ResourceType: "Parameter", ResourceId: new("p")})
	if len(out.TagList) != 1 || *out.TagList[0].Key != "b" {
		t.Errorf("tags %+v", out.TagList)
	}
	refused(b, b.listTagsForResource, &ssm.ListTagsForResourceInput{ResourceType: "Document", ResourceId: new("p")}, "InvalidResourceType", "")
	refused(b, b.listTagsForResource, &ssm.ListTagsForResourceInput{ResourceType: "Parameter", ResourceId: new("q")}, "InvalidResourceId", "q")
}

// TestValuesAreSealedWhereTheyBelong: no record has a value in it, and one that is moved elsewhere does not open.
func TestValuesAreSealedWhereTheyBelong(t *testing.T) {
	b := newBench(t)
	b.put("/p", "canary 1", "String")
	b.put("/p", "canary 2", "String")
	var all []*ParameterVersion
	for v := range Versions.Scan(b.Store.View(), state.K()) {
		raw, err := proto.Marshal(v)
		if err != nil || bytes.Contains(raw, []byte("canary")) {
			t.Errorf("a record holds its value in clear (%v)", err)
		}
		all = append(all, v)
	}
	_, err := b.Store.Update(t.Context(), func(tx *state.Tx) error {
		moved := proto.CloneOf(all[1])
		moved.Sealed = all[0].Sealed
		Versions.Put(tx, moved)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.getParameter(b.ctx(), &ssm.GetParameterInput{Name: new("/p")}); !errors.Is(err, seal.ErrInvalid) {
		t.Errorf("an earlier value opens as the newest: %v", err)
	}
}
