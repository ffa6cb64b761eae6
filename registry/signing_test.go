package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/signature"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// profile makes a key with a certificate that is its own root.
func profile(t *testing.T, from time.Time) (s *signature.Signer, root []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "prod"}, NotBefore: from, NotAfter: time.Unix(1<<34, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	if s, err = signature.NewSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), root); err != nil {
		t.Fatal(err)
	}
	return s, root
}

func profileARN(name string) string {
	return "arn:aws:signer:" + region + ":" + account + ":/signing-profiles/" + name
}

func signingRule(profile string, repositories ...string) types.SigningRule {
	rule := types.SigningRule{SigningProfileArn: new(profileARN(profile))}
	for _, f := range repositories {
		rule.RepositoryFilters = append(rule.RepositoryFilters, types.SigningRepositoryFilter{Filter: &f, FilterType: types.SigningRepositoryFilterTypeWildcardMatch})
	}
	return rule
}

func (b *bench) signBy(rules ...types.SigningRule) {
	b.t.Helper()
	must[ecr.PutSigningConfigurationOutput](b, &ecr.PutSigningConfigurationInput{SigningConfiguration: &types.SigningConfiguration{Rules: rules}})
}

func (b *bench) sign() {
	b.t.Helper()
	if err := b.reg.SignNow(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// signings are the states of an image's signatures: "prod: COMPLETE".
func (b *bench) signings(repo, tag string) string {
	b.t.Helper()
	out := must[ecr.DescribeImageSigningStatusOutput](b, &ecr.DescribeImageSigningStatusInput{RepositoryName: &repo, ImageId: tagged(tag)})
	if *out.RepositoryName != repo || *out.RegistryId != account || *out.ImageId.ImageTag != tag || out.ImageId.ImageDigest == nil {
		b.t.Errorf("it is about %+v", out)
	}
	var all []string
	for _, s := range out.SigningStatuses {
		name := (*s.SigningProfileArn)[strings.LastIndex(*s.SigningProfileArn, "/")+1:]
		one := fmt.Sprintf("%s: %s", name, s.Status)
		if s.FailureCode != nil {
			one += " " + *s.FailureCode + " " + *s.FailureReason
		}
		all = append(all, one)
	}
	return strings.Join(all, ", ")
}

func (b *bench) signingRecords() (n int) {
	for range registry.ImageSignings.Scan(b.store.View(), state.K()) {
		n++
	}
	return n
}

func (b *bench) wantSignings(repo, tag, want string) {
	b.t.Helper()
	if got := b.signings(repo, tag); got != want {
		b.t.Errorf("%s:%s has %q, want %q", repo, tag, got, want)
	}
}

func (b *bench) referrers(repo string, d blob.Digest) int {
	b.t.Helper()
	out := must[ecr.ListImageReferrersOutput](b, &ecr.ListImageReferrersInput{RepositoryName: &repo, SubjectId: &types.SubjectIdentifier{ImageDigest: new(string(d))}})
	return len(out.Referrers)
}

// An image that is pushed gets the signatures that the configuration asks for: verified by those who trust the profile's certificate.
func TestSigningConfiguration(t *testing.T) {
	prod, root := profile(t, time.Unix(0, 0))
	audit, _ := profile(t, time.Unix(0, 0))
	trusted, err := signature.New(nil, root)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *registry.Config) {
		c.Signer = func(of, name string) (*signature.Signer, error) {
			if s := map[string]*signature.Signer{"prod": prod, "audit": audit}[name]; s != nil && of == account {
				return s, nil
			}
			return nil, errors.New("nothing is known of " + of + " " + name)
		}
		c.Signatures = &registry.Signatures{Policy: trusted}
	})
	const absent = "SigningConfigurationNotFoundException: The signing configuration does not exist in the registry with id '000000000000'"
	refused[ecr.GetSigningConfigurationOutput](b, &ecr.GetSigningConfigurationInput{}, absent)
	refused[ecr.DeleteSigningConfigurationOutput](b, &ecr.DeleteSigningConfigurationInput{}, absent)
	refused[ecr.PutSigningConfigurationOutput](b, &ecr.PutSigningConfigurationInput{SigningConfiguration: &types.SigningConfiguration{Rules: []types.SigningRule{signingRule("nobody")}}},
		"InvalidParameterException: Invalid parameter at 'signingProfileArn' failed to satisfy constraint: '"+profileARN("nobody")+": there is no such signing profile: nothing is known of 000000000000 nobody'")
	filter := signingRule("prod", "*")
	filter.RepositoryFilters[0].FilterType = "PREFIX_MATCH"
	for want, rules := range map[string][]types.SigningRule{
		"'rules' failed to satisfy constraint: 'there are 10":                slices.Repeat([]types.SigningRule{signingRule("prod")}, 11),
		"'signingProfileArn' failed to satisfy constraint: 'must satisfy":    {signingRule("p")},
		"'filter' failed to satisfy constraint: 'must satisfy":               {signingRule("prod", "UPPER")},
		"'filterType' failed to satisfy constraint: 'must be WILDCARD":       {filter},
		"'repositoryFilters' failed to satisfy constraint: 'a rule has 1 to": {signingRule("prod", slices.Repeat([]string{"*"}, 101)...)},
	} {
		_, err := call[ecr.PutSigningConfigurationOutput](b, account, region, &ecr.PutSigningConfigurationInput{SigningConfiguration: &types.SigningConfiguration{Rules: rules}})
		if err == nil || !strings.HasPrefix(err.Error(), "InvalidParameterException: Invalid parameter at "+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	b.signBy(signingRule("prod", "prod/*"), signingRule("audit"), signingRule("prod", "*/users"))
	if got := must[ecr.GetSigningConfigurationOutput](b, &ecr.GetSigningConfigurationInput{}); *got.RegistryId != account || len(got.SigningConfiguration.Rules) != 3 {
		t.Errorf("the configuration is %+v", got)
	}

	stranger, _ := signingKey(t)
	b.create("prod/users", "test/threads")
	one := b.pushImage("prod/users", "v1", "one")
	b.pushImage("test/threads", "v1", "one")
	b.wantSignings("prod/users", "v1", "audit: IN_PROGRESS, prod: IN_PROGRESS")
	b.wantSignings("test/threads", "v1", "audit: IN_PROGRESS")
	b.sign()
	b.wantSignings("prod/users", "v1", "audit: COMPLETE, prod: COMPLETE")
	b.wantSignings("test/threads", "v1", "audit: COMPLETE")
	if n := b.referrers("prod/users", one); n != 2 {
		t.Errorf("it has %d referrers", n)
	}
	asTask := func(repo string) int {
		return b.do("GET", "/v2/"+repo+"/manifests/v1", nil, basic("AWS", b.reg.PullToken(account, region, repo))).StatusCode
	}
	if asTask("prod/users") != 200 || asTask("test/threads") != 403 {
		t.Error("tasks get the image that the trusted profile signed, and no other")
	}

	// Neither the signatures nor what is no image are signed, and what is signed is not signed again.
	b.cosign("prod/users", one, stranger, true)
	b.pushImage("prod/users", "v2", "one")
	b.sign()
	if n := b.referrers("prod/users", one); n != 3 {
		t.Errorf("it has %d referrers", n)
	}
	if n := b.signingRecords(); n != 3 {
		t.Errorf("there are %d records", n)
	}
	// Nor is it when the leader that signed could not say so.
	if _, err := b.store.Update(t.Context(), func(tx *state.Tx) error {
		for s := range registry.ImageSignings.Scan(tx, state.K()) {
			s = proto.CloneOf(s)
			s.Status = string(types.SigningStatusInProgress)
			registry.ImageSignings.Put(tx, s)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.sign()
	b.wantSignings("prod/users", "v1", "audit: COMPLETE, prod: COMPLETE")
	if n := b.referrers("prod/users", one); n != 3 {
		t.Errorf("it has %d referrers", n)
	}

	// Indexes are signed, for those who pull them whole.
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, one, len(b.want(200, "GET", "/v2/prod/users/manifests/v1", nil).body))}})
	b.want(201, "PUT", "/v2/prod/users/manifests/multi", index, mediaType(ociIndex))
	b.sign()
	b.wantSignings("prod/users", "multi", "audit: COMPLETE, prod: COMPLETE")

	// What goes takes its records along.
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("test/threads"), Force: true})
	must[ecr.BatchDeleteImageOutput](b, &ecr.BatchDeleteImageInput{RepositoryName: new("prod/users"), ImageIds: []types.ImageIdentifier{*tagged("multi")}})
	b.collect()
	if n := b.signingRecords(); n != 2 {
		t.Errorf("%d records are left", n)
	}
	if got := must[ecr.DeleteSigningConfigurationOutput](b, &ecr.DeleteSigningConfigurationInput{}); len(got.SigningConfiguration.Rules) != 3 {
		t.Errorf("deleted was %+v", got)
	}
	b.pushImage("prod/users", "v3", "three")
	b.wantSignings("prod/users", "v3", "")
}

// Whoever pushes needs the right to sign; one who has it can push again. A profile that is lost, and trouble, are told.
func TestSigningFails(t *testing.T) {
	prod, _ := profile(t, time.Unix(0, 0))
	var denied, lost error
	b := newBench(t, func(c *registry.Config) {
		c.Signer = func(string, string) (*signature.Signer, error) { return prod, lost }
		c.Authorizer = authorizer(func(c *api.Call, a api.Access) error {
			if a.Action != "signer:SignPayload" {
				return nil
			}
			if want := []string{profileARN("prod")}; !slices.Equal(a.Resources, want) || c.Service != "signer" || c.Operation != "SignPayload" {
				t.Errorf("asked is %+v for %v", c, a.Resources)
			}
			return denied
		})
	})
	b.create("users")
	b.signBy(signingRule("prod"))
	denied = errors.New("user/ana is not authorized to perform: signer:SignPayload")
	one := b.pushImage("users", "v1", "one")
	b.wantSignings("users", "v1", "prod: FAILED AccessDeniedException "+denied.Error())
	b.sign()
	b.wantSignings("users", "v1", "prod: FAILED AccessDeniedException "+denied.Error())
	denied, lost = nil, errors.New("it was deleted")
	b.pushImage("users", "v1", "one")
	b.wantSignings("users", "v1", "prod: IN_PROGRESS")
	b.sign()
	b.wantSignings("users", "v1", "prod: FAILED ResourceNotFoundException there is no such signing profile: it was deleted")

	// A certificate that is not valid yet may be so at the next attempt; in the end it is a failure.
	lost = nil
	prod, _ = profile(t, b.clock.Now().Add(24*time.Hour))
	must[ecr.PutImageOutput](b, &ecr.PutImageInput{RepositoryName: new("users"), ImageManifest: new(b.want(200, "GET", "/v2/users/manifests/v1", nil).body), ImageTag: new("again")})
	for range 4 {
		b.sign()
		b.wantSignings("users", "v1", "prod: IN_PROGRESS")
		b.clock.Advance(2 * time.Minute)
	}
	b.sign()
	if got := b.signings("users", "v1"); !strings.HasPrefix(got, "prod: FAILED InternalServiceErrorException the certificate of CN=prod is valid from") {
		t.Error(got)
	}
	if n := b.referrers("users", one); n != 0 {
		t.Errorf("it has %d referrers", n)
	}
}

// The loop signs what is pushed by itself.
func TestSigningLoop(t *testing.T) {
	prod, _ := profile(t, time.Unix(0, 0))
	b := newBench(t, func(c *registry.Config) {
		c.Signer = func(string, string) (*signature.Signer, error) { return prod, nil }
	})
	b.create("users")
	b.signBy(signingRule("prod"))
	b.run()
	b.pushImage("users", "v1", "one")
	b.eventually(time.Second, func(v *state.View) bool {
		for s := range registry.ImageSignings.Scan(v, state.K()) {
			return s.Status == string(types.SigningStatusComplete)
		}
		return false
	})
}
