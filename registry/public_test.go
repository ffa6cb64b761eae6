package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	iampolicy "github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const alias = "r00000000" // of account 000000000000

var publicIgnore = cmpopts.IgnoreUnexported(types.Repository{}, types.RepositoryCatalogData{}, types.Registry{}, types.RegistryAlias{})

func withDomain(c *registry.Config) { c.Domain = "localhost" }

func (b *bench) publicHost() string {
	_, port, err := net.SplitHostPort(b.host())
	if err != nil {
		b.t.Fatal(err)
	}
	return "public.ecr.localhost:" + port
}

// publicPassword is what ecr-public's GetAuthorizationToken gives an account's root.
func (b *bench) publicPassword(account string) string {
	b.t.Helper()
	out, err := call[ecrpublic.GetAuthorizationTokenOutput](b, account, region, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		b.t.Fatal(err)
	}
	if got := out.AuthorizationData.ExpiresAt.Sub(b.clock.Now()); got != 12*time.Hour {
		b.t.Errorf("it is good for %s", got)
	}
	pair, err := base64.StdEncoding.DecodeString(*out.AuthorizationData.AuthorizationToken)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimPrefix(string(pair), "AWS:")
}

// publicRef names an image of the public registry, for a client that gets to the bench by the name.
func (b *bench) publicRef(s string) (name.Reference, remote.Option) {
	b.t.Helper()
	ref, err := name.ParseReference(b.publicHost()+"/"+s, name.Insecure)
	if err != nil {
		b.t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, b.host())
	}
	b.t.Cleanup(transport.CloseIdleConnections)
	return ref, remote.WithTransport(transport)
}

// Whoever is logged in pushes to his own public registry, everybody pulls from it, and what is private stays so.
func TestPublicRegistry(t *testing.T) {
	b := newBench(t, withDomain)
	b.create("web")
	created := must[ecrpublic.CreateRepositoryOutput](b, &ecrpublic.CreateRepositoryInput{RepositoryName: new("team/web")})
	want := &types.Repository{
		CreatedAt: new(b.clock.Now()), RegistryId: new(account), RepositoryArn: new("arn:aws:ecr-public::000000000000:repository/team/web"),
		RepositoryName: new("team/web"), RepositoryUri: new(b.publicHost() + "/" + alias + "/team/web"),
	}
	if d := cmp.Diff(want, created.Repository, publicIgnore); d != "" {
		t.Error(d)
	}
	listed := must[ecrpublic.DescribeRepositoriesOutput](b, &ecrpublic.DescribeRepositoriesInput{}).Repositories
	if d := cmp.Diff([]types.Repository{*want}, listed, publicIgnore); d != "" {
		t.Error(d)
	}
	if own := must[ecr.DescribeRepositoriesOutput](b, &ecr.DescribeRepositoriesInput{}).Repositories; len(own) != 1 || *own[0].RepositoryName != "web" {
		t.Errorf("private are %+v", own)
	}
	if elsewhere, err := call[ecrpublic.DescribeRepositoriesOutput](b, account, "eu-west-1", &ecrpublic.DescribeRepositoriesInput{}); err != nil || len(elsewhere.Repositories) != 1 {
		t.Errorf("in another region there are %+v, %v", elsewhere, err)
	}

	image := imageFor(t, "amd64")
	ref, transport := b.publicRef(alias + "/team/web:v1")
	if err := remote.Write(ref, image, transport); err == nil || !strings.Contains(err.Error(), "has to log in") {
		t.Errorf("an anonymous push: %v", err)
	}
	for _, stranger := range []string{b.token, b.publicPassword("111111111111")} {
		if err := remote.Write(ref, image, transport, remote.WithAuth(&authn.Basic{Username: "AWS", Password: stranger})); err == nil {
			t.Error("a stranger pushed")
		}
	}
	if err := remote.Write(ref, image, transport, remote.WithAuth(&authn.Basic{Username: "AWS", Password: b.publicPassword(account)})); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(ref, transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	if tags, err := remote.List(ref.Context(), transport); err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("the tags are %v, %v", tags, err)
	}

	// A host that runs a task of any account pulls it.
	user, password, ok := b.reg.PullCredentials("111111111111", region, b.publicHost()+"/"+alias+"/team/web:v1", nil)
	if !ok {
		t.Fatal("the registry does not know its own image")
	}
	b.want(200, "GET", "/v2/"+alias+"/team/web/manifests/v1", nil, host(b.publicHost()), basic(user, password))
	b.want(401, "GET", "/v2/team/web/manifests/v1", nil, basic(user, password))
	if _, _, ok := b.reg.PullCredentials(account, region, "public.ecr.aws/"+alias+"/team/web:v1", nil); ok {
		t.Error("an image on AWS is taken for this registry's")
	}

	// What does not fit.
	at := host(b.publicHost())
	challenge := b.want(401, "GET", "/v2/", nil, at, anonymous()).Header.Get("WWW-Authenticate")
	if want := `Bearer realm="http://` + b.publicHost() + `/v2/token",service="` + b.publicHost() + `",scope="aws"`; challenge != want {
		t.Errorf("the challenge is %s, want %s", challenge, want)
	}
	b.want(401, "GET", "/v2/", nil, at) // with a token of private registries
	b.want(401, "GET", "/v2/token", nil, at, basic("AWS", "nonsense"))
	b.want(405, "POST", "/v2/token", nil, at, anonymous())
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(b.want(200, "GET", "/v2/token?service=x&scope=aws", nil, at, anonymous()).body), &token); err != nil {
		t.Fatal(err)
	}
	nobody := header("Authorization", "Bearer "+token.Token)
	b.want(200, "GET", "/v2/", nil, at, nobody)
	for path, code := range map[string]string{
		"/v2/" + alias + "/nothing/manifests/v1": "NAME_UNKNOWN", "/v2/r0/team/web/manifests/v1": "NAME_UNKNOWN", "/v2/" + alias + "/web/manifests/v1": "NAME_UNKNOWN",
		"/v2/" + alias + "/team/web/manifests/v2": "MANIFEST_UNKNOWN",
	} {
		if a := b.want(404, "GET", path, nil, at, nobody); a.code() != code {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	b.want(401, "DELETE", "/v2/"+alias+"/team/web/manifests/v1", nil, at, nobody)
	b.want(401, "GET", "/v2/web/tags/list", nil, nobody) // at the private registry's host
	b.want(401, "GET", "/v2/_catalog", nil, at, nobody)
	b.clock.Advance(2 * time.Hour)
	b.want(401, "GET", "/v2/", nil, at, nobody)
}

// The operations of ecr-public.
func TestPublicOperations(t *testing.T) {
	b := newBench(t, withDomain)
	const arn = "arn:aws:ecr-public::000000000000:repository/web"
	repo := new("web")
	refused[ecrpublic.CreateRepositoryOutput](b, &ecrpublic.CreateRepositoryInput{RepositoryName: repo, CatalogData: &types.RepositoryCatalogDataInput{LogoImageBlob: []byte("x")}},
		"UnsupportedCommandException: Logos are not kept here: leave out 'logoImageBlob'.")
	made := must[ecrpublic.CreateRepositoryOutput](b, &ecrpublic.CreateRepositoryInput{RepositoryName: repo, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}})
	if d := cmp.Diff(&types.RepositoryCatalogData{MarketplaceCertified: new(false)}, made.CatalogData, publicIgnore); d != "" {
		t.Error(d)
	}
	refused[ecrpublic.CreateRepositoryOutput](b, &ecrpublic.CreateRepositoryInput{RepositoryName: repo}, "RepositoryAlreadyExistsException: The repository with name 'web' already exists in the registry with id '000000000000'")
	refused[ecrpublic.GetRepositoryCatalogDataOutput](b, &ecrpublic.GetRepositoryCatalogDataInput{RepositoryName: repo},
		"RepositoryCatalogDataNotFoundException: Repository catalog data does not exist for the repository with name 'web' in the registry with id '000000000000'")
	about := &types.RepositoryCatalogDataInput{AboutText: new("# Web"), Architectures: []string{"x86-64"}, Description: new("a site"), OperatingSystems: []string{"Linux"}, UsageText: new("run it")}
	must[ecrpublic.PutRepositoryCatalogDataOutput](b, &ecrpublic.PutRepositoryCatalogDataInput{RepositoryName: repo, CatalogData: about})
	want := &types.RepositoryCatalogData{AboutText: new("# Web"), Architectures: []string{"x86-64"}, Description: new("a site"), OperatingSystems: []string{"Linux"}, UsageText: new("run it"), MarketplaceCertified: new(false)}
	if d := cmp.Diff(want, must[ecrpublic.GetRepositoryCatalogDataOutput](b, &ecrpublic.GetRepositoryCatalogDataInput{RepositoryName: repo}).CatalogData, publicIgnore); d != "" {
		t.Error(d)
	}

	// An image, by the layers API and PutImage, the registry named by its alias.
	layers := map[string]string{"config": `{"architecture":"amd64"}`, "layer": "content"}
	digests := map[string]string{}
	for kind, content := range layers {
		begun := must[ecrpublic.InitiateLayerUploadOutput](b, &ecrpublic.InitiateLayerUploadInput{RegistryId: new(alias), RepositoryName: repo})
		must[ecrpublic.UploadLayerPartOutput](b, &ecrpublic.UploadLayerPartInput{RepositoryName: repo, UploadId: begun.UploadId, PartFirstByte: new(int64(0)), PartLastByte: new(int64(len(content) - 1)), LayerPartBlob: []byte(content)})
		digests[kind] = string(blob.Sum([]byte(content)))
		must[ecrpublic.CompleteLayerUploadOutput](b, &ecrpublic.CompleteLayerUploadInput{RepositoryName: repo, UploadId: begun.UploadId, LayerDigests: []string{digests[kind]}})
	}
	available := must[ecrpublic.BatchCheckLayerAvailabilityOutput](b, &ecrpublic.BatchCheckLayerAvailabilityInput{RepositoryName: repo, LayerDigests: []string{digests["layer"], string(blob.Sum([]byte("other")))}})
	if len(available.Layers) != 2 || available.Layers[0].LayerAvailability != "AVAILABLE" || available.Layers[1].LayerAvailability != "UNAVAILABLE" || *available.Layers[0].LayerSize != 7 {
		t.Errorf("there are %+v", available)
	}
	manifest := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, blob.Sum([]byte(layers["config"])), len(layers["config"])), "layers": []any{desc(ociLayer, blob.Sum([]byte(layers["layer"])), 7)}})
	put := must[ecrpublic.PutImageOutput](b, &ecrpublic.PutImageInput{RepositoryName: repo, ImageManifest: &manifest, ImageTag: new("v1")})
	if *put.Image.RepositoryName != "web" || *put.Image.ImageId.ImageTag != "v1" || *put.Image.ImageManifest != manifest {
		t.Errorf("put was %+v", put.Image)
	}
	must[ecrpublic.PutImageOutput](b, &ecrpublic.PutImageInput{RepositoryName: repo, ImageManifest: &manifest, ImageTag: new("v2")})
	images := must[ecrpublic.DescribeImagesOutput](b, &ecrpublic.DescribeImagesInput{RepositoryName: repo}).ImageDetails
	if len(images) != 1 || !slices.Equal(images[0].ImageTags, []string{"v1", "v2"}) || *images[0].ImageDigest != string(blob.Sum([]byte(manifest))) || !images[0].ImagePushedAt.Equal(b.clock.Now()) {
		t.Errorf("the images are %+v", images)
	}
	var tags []string
	for in := (&ecrpublic.DescribeImageTagsInput{RepositoryName: repo, MaxResults: new(int32(1))}); ; {
		page := must[ecrpublic.DescribeImageTagsOutput](b, in)
		for _, d := range page.ImageTagDetails {
			if *d.ImageDetail.ImageDigest != string(blob.Sum([]byte(manifest))) || d.CreatedAt == nil {
				t.Errorf("a tag is %+v", d)
			}
			tags = append(tags, *d.ImageTag)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			break
		}
	}
	if !slices.Equal(tags, []string{"v1", "v2"}) {
		t.Errorf("the tags are %v", tags)
	}

	// The registry.
	registries := must[ecrpublic.DescribeRegistriesOutput](b, &ecrpublic.DescribeRegistriesInput{}).Registries
	if d := cmp.Diff([]types.Registry{{
		Aliases:     []types.RegistryAlias{{DefaultRegistryAlias: true, Name: new(alias), PrimaryRegistryAlias: true, Status: "ACTIVE"}},
		RegistryArn: new("arn:aws:ecr-public::000000000000:registry/000000000000"), RegistryId: new(account), RegistryUri: new(b.publicHost() + "/" + alias), Verified: new(false),
	}}, registries, publicIgnore); d != "" {
		t.Error(d)
	}
	must[ecrpublic.PutRegistryCatalogDataOutput](b, &ecrpublic.PutRegistryCatalogDataInput{DisplayName: new("We")})
	if got := must[ecrpublic.GetRegistryCatalogDataOutput](b, &ecrpublic.GetRegistryCatalogDataInput{}); *got.RegistryCatalogData.DisplayName != "We" {
		t.Errorf("it is called %+v", got)
	}

	// Tags and policies, which speak of ecr-public.
	must[ecrpublic.TagResourceOutput](b, &ecrpublic.TagResourceInput{ResourceArn: new(arn), Tags: []types.Tag{{Key: new("c"), Value: new("d")}}})
	must[ecrpublic.UntagResourceOutput](b, &ecrpublic.UntagResourceInput{ResourceArn: new(arn), TagKeys: []string{"a"}})
	if got := must[ecrpublic.ListTagsForResourceOutput](b, &ecrpublic.ListTagsForResourceInput{ResourceArn: new(arn)}).Tags; len(got) != 1 || *got[0].Key != "c" {
		t.Errorf("its tags are %+v", got)
	}
	for _, other := range []string{"arn:aws:ecr:us-east-1:000000000000:repository/web", "arn:aws:ecr-public:us-east-1:000000000000:repository/web"} {
		refused[ecrpublic.ListTagsForResourceOutput](b, &ecrpublic.ListTagsForResourceInput{ResourceArn: &other}, "InvalidParameterException: Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'")
	}
	policy := policyOf(`{"Effect":"Allow","Principal":"*","Action":"ecr-public:PutImage"}`)
	must[ecrpublic.SetRepositoryPolicyOutput](b, &ecrpublic.SetRepositoryPolicyInput{RepositoryName: repo, PolicyText: &policy})
	if got := must[ecrpublic.GetRepositoryPolicyOutput](b, &ecrpublic.GetRepositoryPolicyInput{RepositoryName: repo}); *got.PolicyText != policy {
		t.Errorf("its policy is %s", *got.PolicyText)
	}
	private := policyOf(`{"Effect":"Allow","Principal":"*","Action":"ecr:PutImage"}`)
	if _, err := call[ecrpublic.SetRepositoryPolicyOutput](b, account, region, &ecrpublic.SetRepositoryPolicyInput{RepositoryName: repo, PolicyText: &private}); err == nil || !strings.Contains(err.Error(), "Actions of ecr have no place in it") {
		t.Errorf("a policy about private repositories: %v", err)
	}
	must[ecrpublic.DeleteRepositoryPolicyOutput](b, &ecrpublic.DeleteRepositoryPolicyInput{RepositoryName: repo})

	if got := must[ecrpublic.BatchDeleteImageOutput](b, &ecrpublic.BatchDeleteImageInput{RepositoryName: repo, ImageIds: []types.ImageIdentifier{{ImageTag: new("v1")}, {ImageTag: new("v9")}}}); len(got.ImageIds) != 1 || len(got.Failures) != 1 || got.Failures[0].FailureCode != "ImageNotFound" {
		t.Errorf("deleted are %+v", got)
	}
	refused[ecrpublic.DeleteRepositoryOutput](b, &ecrpublic.DeleteRepositoryInput{RepositoryName: repo}, "RepositoryNotEmptyException: The repository with name 'web' in registry with id '000000000000' cannot be deleted because it still contains images")
	must[ecrpublic.DeleteRepositoryOutput](b, &ecrpublic.DeleteRepositoryInput{RepositoryName: repo, Force: true})
	b.age(48 * time.Hour)
	b.collect()
	if left := b.stored(); len(left) != 0 {
		t.Errorf("blobs are left: %v", left)
	}
}

// Pushes are held against the caller's policies and the repository's, as actions of ecr-public; pulls against none.
func TestPublicPolicies(t *testing.T) {
	var b *bench
	everybody, known := map[string]api.Identity{"root": rootOf(account)}, people{}
	for name, statement := range map[string]string{"ana": `{"Effect":"Allow","Action":"ecr-public:*","Resource":"arn:aws:ecr-public::000000000000:repository/web"}`, "bob": `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`} {
		id := userOf(account, name)
		everybody[name], known[id.UserID] = id, statement
	}
	eve := userOf(stranger, "eve")
	everybody["eve"], known[eve.UserID] = eve, `{"Effect":"Allow","Action":"ecr-public:*","Resource":"*"}`
	access := &auth.IAM{Principals: known, Recovery: registry.Recovery, Resource: func(action, arn string) (*iampolicy.Policy, bool) { return b.reg.ResourcePolicy(action, arn), false }}
	b = newBench(t, withDomain, func(c *registry.Config) {
		c.Authorizer, c.Weigh = access, access.Weigh
		c.Principals = func(_ state.Reader, arn string) (string, bool) {
			for _, who := range everybody {
				if who.ARN == arn {
					return who.UserID, true
				}
			}
			return "", false
		}
		c.Credentials = func(_ context.Context, name, _ string) (api.Identity, bool) { id, ok := everybody[name]; return id, ok }
	})
	must[ecrpublic.CreateRepositoryOutput](b, &ecrpublic.CreateRepositoryInput{RepositoryName: new("web")})
	push := func(who string) int {
		return b.do("POST", "/v2/"+alias+"/web/blobs/uploads/?digest="+string(blob.Sum([]byte(who))), who, host(b.publicHost()), basic(who, "x")).StatusCode
	}
	if a, o, e := push("ana"), push("bob"), push("eve"); a != 201 || o != 403 || e != 403 {
		t.Errorf("ana %d, bob %d, eve %d", a, o, e)
	}
	must[ecrpublic.SetRepositoryPolicyOutput](b, &ecrpublic.SetRepositoryPolicyInput{RepositoryName: new("web"), PolicyText: new(policyOf(`{"Effect":"Allow","Principal":{"AWS":"` + eve.ARN + `"},"Action":["ecr-public:InitiateLayerUpload","ecr-public:UploadLayerPart","ecr-public:CompleteLayerUpload"]}`))})
	if o, e := push("bob"), push("eve"); o != 403 || e != 201 {
		t.Errorf("with the policy bob %d, eve %d", o, e)
	}
	b.want(200, "GET", "/v2/"+alias+"/web/tags/list", nil, host(b.publicHost()), basic("bob", "x"))
}
