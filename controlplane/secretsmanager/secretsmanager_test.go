package secretsmanager

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

	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
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

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newBench(t *testing.T) *bench {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	pages, err := seal.New(key, "pages")
	if err != nil {
		t.Fatal(err)
	}
	values, err := seal.New(key, "secretsmanager")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, clk: clock.NewFake(start)}
	b.Family = New(Config{Store: statetest.New(t, append(append(state.Schema{}, controlplane.Schema...), Schema...)...), Rand: rand.Reader,
		Pages: api.NewPages(pages), Seal: values, Clock: b.clk, Log: slog.New(slog.DiscardHandler)})
	return b
}

func (b *bench) ctx() context.Context {
	return api.WithCall(b.t.Context(), &api.Call{Identity: api.System("000000000000"), Region: "us-east-1", Service: "secretsmanager", Operation: "X", Time: b.clk.Now()})
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

// refused is an operation that has to fail so, and not to say what the secret is.
func refused[I, O any](b *bench, f func(context.Context, *I) (*O, error), in *I, code, message string) {
	b.t.Helper()
	_, err := f(b.ctx(), in)
	if e, ok := awserr.As(err); !ok || e.Code != code || !strings.Contains(e.Message, message) || strings.Contains(e.Message, "canary") {
		b.t.Errorf("%T: error %v, want %s: %s", *in, err, code, message)
	}
}

func (b *bench) value(in *sm.GetSecretValueInput) string {
	b.t.Helper()
	return *do(b, b.getSecretValue, in).SecretString
}

const (
	tokenA = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	tokenB = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
	tokenC = "cccccccc-cccc-cccc-cccc-cccccccccccc"
)

func TestSecretIsFoundByNameARNAndPartialARN(t *testing.T) {
	b := newBench(t)
	made := do(b, b.createSecret, &sm.CreateSecretInput{Name: new("prod/db"), SecretString: new("canary"), Description: new("d"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	partial := strings.TrimSuffix(*made.ARN, (*made.ARN)[len(*made.ARN)-7:])
	if partial != "arn:aws:secretsmanager:us-east-1:000000000000:secret:prod/db" {
		t.Fatalf("ARN %s", *made.ARN)
	}
	for _, id := range []string{"prod/db", *made.ARN, partial} {
		if got := b.value(&sm.GetSecretValueInput{SecretId: &id}); got != "canary" {
			t.Errorf("%s: %q", id, got)
		}
	}
	for _, id := range []string{"prod", partial + "-000000", strings.Replace(*made.ARN, "us-east-1", "eu-west-1", 1), strings.Replace(*made.ARN, "000000000000", "111111111111", 1)} {
		refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: &id}, "ResourceNotFoundException", "can't find the specified secret.")
	}
	refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: new("arn:aws:ssm:us-east-1:000000000000:parameter/x")}, "ValidationException", "")
	// A secret whose name ends like a suffix is not taken for another one's ARN.
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("prod/db-abcdef"), SecretString: new("other canary")})
	if got := b.value(&sm.GetSecretValueInput{SecretId: new(partial + "-abcdef")}); got != "other canary" {
		t.Errorf("got %q", got)
	}
	d := do(b, b.describeSecret, &sm.DescribeSecretInput{SecretId: new("prod/db")})
	if *d.Description != "d" || len(d.Tags) != 1 || len(d.VersionIdsToStages[*made.VersionId]) != 1 {
		t.Errorf("described as %+v", d)
	}
}

func TestCreateSecretIsIdempotentByItsToken(t *testing.T) {
	b := newBench(t)
	in := &sm.CreateSecretInput{Name: new("s"), SecretString: new("canary"), ClientRequestToken: new(tokenA)}
	first, again := do(b, b.createSecret, in), do(b, b.createSecret, in)
	if *first.ARN != *again.ARN || *first.VersionId != tokenA || *again.VersionId != tokenA {
		t.Errorf("first %+v, again %+v", first, again)
	}
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), SecretString: new("canary 2"), ClientRequestToken: new(tokenA)}, "ResourceExistsException", "already in use")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), SecretString: new("canary"), ClientRequestToken: new(tokenB)}, "ResourceExistsException", "already exists")
}

func TestCreateSecretRefuses(t *testing.T) {
	b := newBench(t)
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("a b")}, "ValidationException", "Invalid name")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), KmsKeyId: new("alias/mine")}, "InvalidParameterException", "KmsKeyId")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), SecretString: new("canary"), SecretBinary: []byte("canary")}, "InvalidParameterException", "both")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), SecretBinary: bytes.Repeat([]byte{1}, maxValue+1)}, "InvalidParameterException", "longer than 65536")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), AddReplicaRegions: []types.ReplicaRegionType{{}}}, "InvalidParameterException", "AddReplicaRegions")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), Tags: []types.Tag{{Key: new("aws:x")}}}, "InvalidParameterException", "reserved")
}

func TestStagingLabelsMove(t *testing.T) {
	b := newBench(t)
	id := new("s")
	do(b, b.createSecret, &sm.CreateSecretInput{Name: id})
	refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: id}, "ResourceNotFoundException", "staging label: AWSCURRENT")
	// The first version is current, whatever it is called.
	put := do(b, b.putSecretValue, &sm.PutSecretValueInput{SecretId: id, SecretString: new("one"), ClientRequestToken: new(tokenA), VersionStages: []string{"BLUE"}})
	if !slices.Equal(put.VersionStages, []string{"AWSCURRENT", "BLUE"}) {
		t.Errorf("stages %v", put.VersionStages)
	}
	do(b, b.putSecretValue, &sm.PutSecretValueInput{SecretId: id, SecretString: new("two"), ClientRequestToken: new(tokenB)})
	do(b, b.putSecretValue, &sm.PutSecretValueInput{SecretId: id, SecretString: new("three"), ClientRequestToken: new(tokenC), VersionStages: []string{"AWSPENDING"}})
	for stage, want := range map[string]string{"AWSCURRENT": "two", "AWSPREVIOUS": "one", "BLUE": "one", "AWSPENDING": "three"} {
		if got := b.value(&sm.GetSecretValueInput{SecretId: id, VersionStage: &stage}); got != want {
			t.Errorf("%s is %q, want %q", stage, got, want)
		}
	}
	if got := b.value(&sm.GetSecretValueInput{SecretId: id, VersionId: new(tokenC)}); got != "three" {
		t.Errorf("version C is %q", got)
	}
	refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: id, VersionId: new(tokenC), VersionStage: new("AWSCURRENT")}, "InvalidRequestException", "not associated")
	refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: id, VersionId: new("nope")}, "ResourceNotFoundException", "VersionId: nope")

	move := func(to, from string) *sm.UpdateSecretVersionStageInput {
		in := &sm.UpdateSecretVersionStageInput{SecretId: id, VersionStage: new("AWSCURRENT")}
		if to != "" {
			in.MoveToVersionId = &to
		}
		if from != "" {
			in.RemoveFromVersionId = &from
		}
		return in
	}
	refused(b, b.updateSecretVersionStage, move(tokenC, ""), "InvalidParameterException", "explicitly reference")
	refused(b, b.updateSecretVersionStage, move(tokenC, tokenA), "InvalidParameterException", "not currently attached")
	refused(b, b.updateSecretVersionStage, move("", tokenB), "InvalidParameterException", "can't be completely removed")
	do(b, b.updateSecretVersionStage, move(tokenC, tokenB))
	for stage, want := range map[string]string{"AWSCURRENT": "three", "AWSPREVIOUS": "two"} {
		if got := b.value(&sm.GetSecretValueInput{SecretId: id, VersionStage: &stage}); got != want {
			t.Errorf("after the move %s is %q, want %q", stage, got, want)
		}
	}
	do(b, b.updateSecretVersionStage, &sm.UpdateSecretVersionStageInput{SecretId: id, VersionStage: new("BLUE"), RemoveFromVersionId: new(tokenA)})
	if got := do(b, b.listSecretVersionIds, &sm.ListSecretVersionIdsInput{SecretId: id}); len(got.Versions) != 2 {
		t.Errorf("%d versions have labels, want 2", len(got.Versions))
	}
	if got := do(b, b.listSecretVersionIds, &sm.ListSecretVersionIdsInput{SecretId: id, IncludeDeprecated: new(true)}); len(got.Versions) != 3 {
		t.Errorf("%d versions, want 3", len(got.Versions))
	}
}

func TestPutSecretValueIsIdempotentByItsToken(t *testing.T) {
	b := newBench(t)
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("s"), SecretString: new("one"), ClientRequestToken: new(tokenA)})
	in := &sm.PutSecretValueInput{SecretId: new("s"), SecretBinary: []byte("two"), ClientRequestToken: new(tokenB)}
	do(b, b.putSecretValue, in)
	do(b, b.putSecretValue, in)
	if got := do(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: new("s")}); string(got.SecretBinary) != "two" || got.SecretString != nil {
		t.Errorf("got %+v", got)
	}
	refused(b, b.putSecretValue, &sm.PutSecretValueInput{SecretId: new("s"), SecretString: new("two"), ClientRequestToken: new(tokenB)}, "ResourceExistsException", "already in use")
	up := do(b, b.updateSecret, &sm.UpdateSecretInput{SecretId: new("s"), Description: new("only words")})
	if up.VersionId != nil || *do(b, b.describeSecret, &sm.DescribeSecretInput{SecretId: new("s")}).Description != "only words" {
		t.Errorf("updated to %+v", up)
	}
}

func TestVersionsWithoutLabelsMakeRoomAfterADay(t *testing.T) {
	b := newBench(t)
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("s")})
	put := func(n int) error {
		_, err := b.putSecretValue(b.ctx(), &sm.PutSecretValueInput{SecretId: new("s"), SecretString: new(fmt.Sprint("canary", n))})
		return err
	}
	for n := range maxVersions {
		if err := put(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(maxVersions); !awserr.Is(err, "LimitExceededException") {
		t.Errorf("one too many: %v", err)
	}
	b.clk.Advance(keepVersion)
	if err := put(maxVersions); err != nil {
		t.Errorf("a day later: %v", err)
	}
	if got := do(b, b.listSecretVersionIds, &sm.ListSecretVersionIdsInput{SecretId: new("s"), IncludeDeprecated: new(true)}); len(got.Versions) != maxVersions {
		t.Errorf("%d versions, want %d", len(got.Versions), maxVersions)
	}
	do(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: new("s"), ForceDeleteWithoutRecovery: new(true)})
	for range Versions.Scan(b.Store.View(), state.K()) {
		t.Fatal("a version outlived its secret")
	}
}

func TestDeletedSecretCanBeRestoredUntilItsWindowIsOver(t *testing.T) {
	b := newBench(t)
	id := new("s")
	made := do(b, b.createSecret, &sm.CreateSecretInput{Name: id, SecretString: new("canary"), Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	refused(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: new("nobody")}, "ResourceNotFoundException", "")
	if gone := do(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: new("nobody"), ForceDeleteWithoutRecovery: new(true)}); *gone.Name != "nobody" {
		t.Errorf("by force, of nobody: %+v", gone)
	}
	refused(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: id, RecoveryWindowInDays: new(int64(6))}, "InvalidParameterException", "between 7 and 30")
	refused(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: id, RecoveryWindowInDays: new(int64(7)), ForceDeleteWithoutRecovery: new(true)}, "InvalidParameterException", "conjunction")
	gone := do(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: id})
	if want := start.AddDate(0, 0, 30); !gone.DeletionDate.Equal(want) {
		t.Errorf("deleted on %s, want %s", gone.DeletionDate, want)
	}
	refused(b, b.getSecretValue, &sm.GetSecretValueInput{SecretId: id}, "InvalidRequestException", "marked for deletion")
	refused(b, b.putSecretValue, &sm.PutSecretValueInput{SecretId: id, SecretString: new("canary")}, "InvalidRequestException", "marked for deletion")
	refused(b, b.createSecret, &sm.CreateSecretInput{Name: id}, "InvalidRequestException", "scheduled for deletion")
	if n := len(do(b, b.listSecrets, &sm.ListSecretsInput{}).SecretList); n != 0 {
		t.Errorf("%d secrets are listed", n)
	}
	if n := len(do(b, b.listSecrets, &sm.ListSecretsInput{IncludePlannedDeletion: new(true)}).SecretList); n != 1 {
		t.Errorf("%d secrets are listed with those to be deleted", n)
	}
	do(b, b.restoreSecret, &sm.RestoreSecretInput{SecretId: id})
	if got := b.value(&sm.GetSecretValueInput{SecretId: id}); got != "canary" {
		t.Errorf("restored as %q", got)
	}
	do(b, b.deleteSecret, &sm.DeleteSecretInput{SecretId: id, RecoveryWindowInDays: new(int64(7))})
	b.clk.Advance(7*24*time.Hour - time.Second)
	if err := b.expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(b, b.describeSecret, &sm.DescribeSecretInput{SecretId: id})
	b.clk.Advance(time.Second)
	if err := b.expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(b, b.describeSecret, &sm.DescribeSecretInput{SecretId: id}, "ResourceNotFoundException", "")
	again := do(b, b.createSecret, &sm.CreateSecretInput{Name: id})
	if *again.ARN == *made.ARN {
		t.Error("a new secret has the ARN of the one before")
	}
	if tags := controlplane.TagsOf(b.Store.View(), controlplane.Scope{Account: "000000000000", Region: "us-east-1"}, *made.ARN); tags != nil {
		t.Errorf("the tags %v outlived their secret", tags)
	}
}

func TestListSecretsPagesFiltersAndSorts(t *testing.T) {
	b := newBench(t)
	for i, name := range []string{"beta", "alpha", "gamma"} {
		do(b, b.createSecret, &sm.CreateSecretInput{Name: &name, Description: new("The " + name), Tags: []types.Tag{{Key: new("team"), Value: new(fmt.Sprint("t", i))}}})
		b.clk.Advance(time.Second)
	}
	list := func(in sm.ListSecretsInput) (names []string) {
		in.MaxResults = new(int32(1))
		for {
			out := do(b, b.listSecrets, &in)
			for _, s := range out.SecretList {
				names = append(names, *s.Name)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return names
			}
		}
	}
	filter := func(key types.FilterNameStringType, values ...string) sm.ListSecretsInput {
		return sm.ListSecretsInput{Filters: []types.Filter{{Key: key, Values: values}}}
	}
	for _, c := range []struct {
		in   sm.ListSecretsInput
		want []string
	}{
		{sm.ListSecretsInput{}, []string{"gamma", "alpha", "beta"}},
		{sm.ListSecretsInput{SortOrder: types.SortOrderTypeAsc}, []string{"beta", "alpha", "gamma"}},
		{sm.ListSecretsInput{SortBy: types.SortByTypeName, SortOrder: types.SortOrderTypeAsc}, []string{"alpha", "beta", "gamma"}},
		{filter("name", "al", "be"), []string{"alpha", "beta"}},
		{filter("name", "!al"), []string{"gamma", "beta"}},
		{filter("description", "the GAMMA"), []string{"gamma"}},
		{filter("tag-value", "t1"), []string{"alpha"}},
		{filter("tag-key", "nobody"), nil},
		{filter("all", "t2"), []string{"gamma"}},
	} {
		if got := list(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.in, got, c.want)
		}
	}
	refused(b, b.listSecrets, &sm.ListSecretsInput{NextToken: new("x")}, "InvalidNextTokenException", "")
}

// only lets read one secret.
type only struct{ arn string }

func (o only) Authorize(_ context.Context, _ *api.Call, a api.Access) error {
	if a.Resources[0] != o.arn {
		return errors.New("not allowed")
	}
	return nil
}

func TestBatchAnswersWhatMayBeRead(t *testing.T) {
	b := newBench(t)
	a := do(b, b.createSecret, &sm.CreateSecretInput{Name: new("a"), SecretString: new("canary a")})
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("ab"), SecretString: new("canary b")})
	b.Authorizer = only{*a.ARN}
	out := do(b, b.batchGetSecretValue, &sm.BatchGetSecretValueInput{SecretIdList: []string{"a", "ab", "c"}})
	if len(out.SecretValues) != 1 || *out.SecretValues[0].SecretString != "canary a" || len(out.Errors) != 2 ||
		*out.Errors[0].ErrorCode != "AccessDeniedException" || *out.Errors[1].ErrorCode != "ResourceNotFoundException" {
		t.Errorf("got %+v", out)
	}
	b.Authorizer = nil
	out = do(b, b.batchGetSecretValue, &sm.BatchGetSecretValueInput{Filters: []types.Filter{{Key: "name", Values: []string{"a"}}}, MaxResults: new(int32(1))})
	if len(out.SecretValues) != 1 || out.NextToken == nil {
		t.Errorf("got %+v", out)
	}
	refused(b, b.batchGetSecretValue, &sm.BatchGetSecretValueInput{}, "InvalidParameterException", "Either")
}

func TestTags(t *testing.T) {
	b := newBench(t)
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("s")})
	do(b, b.tagResource, &sm.TagResourceInput{SecretId: new("s"), Tags: []types.Tag{{Key: new("a"), Value: new("1")}, {Key: new("b"), Value: new("2")}}})
	do(b, b.untagResource, &sm.UntagResourceInput{SecretId: new("s"), TagKeys: []string{"a", "nobody"}})
	if d := do(b, b.describeSecret, &sm.DescribeSecretInput{SecretId: new("s")}); len(d.Tags) != 1 || *d.Tags[0].Key != "b" {
		t.Errorf("tags %+v", d.Tags)
	}
}

func TestRandomPasswordHasWhatIsAsked(t *testing.T) {
	b := newBench(t)
	p := *do(b, b.getRandomPassword, &sm.GetRandomPasswordInput{}).RandomPassword
	if len(p) != 32 || !hasEach(p, []string{letters, upper, digits, punctuation}) {
		t.Errorf("password %q", p)
	}
	p = *do(b, b.getRandomPassword, &sm.GetRandomPasswordInput{PasswordLength: new(int64(500)), ExcludePunctuation: new(true), ExcludeUppercase: new(true),
		ExcludeCharacters: new("abc"), IncludeSpace: new(true)}).RandomPassword
	if len(p) != 500 || strings.ContainsAny(p, upper+punctuation+"abc") || !strings.Contains(p, " ") {
		t.Errorf("password %q", p)
	}
	refused(b, b.getRandomPassword, &sm.GetRandomPasswordInput{PasswordLength: new(int64(3))}, "InvalidParameterException", "too short")
	refused(b, b.getRandomPassword, &sm.GetRandomPasswordInput{PasswordLength: new(int64(4097))}, "InvalidParameterException", "between 1 and 4096")
}

// TestValuesAreSealedWhereTheyBelong: no record has a value in it, and one that is moved elsewhere does not open.
func TestValuesAreSealedWhereTheyBelong(t *testing.T) {
	b := newBench(t)
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("mine"), SecretString: new("canary of mine"), ClientRequestToken: new(tokenA)})
	do(b, b.createSecret, &sm.CreateSecretInput{Name: new("yours"), SecretString: new("canary of yours"), ClientRequestToken: new(tokenA)})
	var sealed []*SecretVersion
	for v := range Versions.Scan(b.Store.View(), state.K()) {
		raw, err := proto.Marshal(v)
		if err != nil || bytes.Contains(raw, []byte("canary")) {
			t.Errorf("a record holds its value in clear (%v)", err)
		}
		sealed = append(sealed, v)
	}
	_, err := b.Store.Update(t.Context(), func(tx *state.Tx) error {
		moved := proto.CloneOf(sealed[0])
		moved.Sealed = sealed[1].Sealed
		Versions.Put(tx, moved)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.getSecretValue(b.ctx(), &sm.GetSecretValueInput{SecretId: &sealed[0].Secret}); !errors.Is(err, seal.ErrInvalid) {
		t.Errorf("a value of another secret opens: %v", err)
	}
}
