package registry_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/signature"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func signingKey(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// cosign signs an image as cosign does, beside it by a tag, or as its referrer.
func (b *bench) cosign(repo string, digest blob.Digest, key crypto.Signer, referrer bool) {
	b.t.Helper()
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repo, digest)
	sum := sha256.Sum256([]byte(payload))
	s, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		b.t.Fatal(err)
	}
	layer := desc(signature.SimpleSigning, b.pushBlob(repo, payload), len(payload))
	layer["annotations"] = map[string]string{signature.Annotation: base64.StdEncoding.EncodeToString(s)}
	m := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, b.pushBlob(repo, "{}"), 2), "layers": []any{layer}}
	ref := strings.Replace(string(digest), ":", "-", 1) + ".sig"
	if referrer {
		m["subject"], m["artifactType"] = desc(ociManifest, digest, 1), "application/vnd.dev.cosign.artifact.sig.v1+json"
		ref = string(blob.Sum([]byte(marshal(m))))
	}
	b.want(201, "PUT", "/v2/"+repo+"/manifests/"+ref, marshal(m), mediaType(ociManifest))
}

// Tasks get images that somebody who is trusted has signed, directly or in an index; people get any.
func TestSignedImages(t *testing.T) {
	key, public := signingKey(t)
	stranger, _ := signingKey(t)
	policy, err := signature.New(public, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *registry.Config) {
		c.Signatures = &registry.Signatures{Policy: policy, Repositories: []string{"prod/*"}}
	})
	b.create("prod/users", "test/users")
	asTask := func(repo, ref string) string {
		t.Helper()
		a := b.do("GET", "/v2/"+repo+"/manifests/"+ref, nil, basic("AWS", b.reg.PullToken(account, region, repo)))
		if a.StatusCode == 200 {
			return ""
		}
		if a.StatusCode != 403 || a.code() != "DENIED" {
			t.Errorf("%s: %s", a.Status, a.body)
		}
		return a.body
	}
	refused := func(ref, why string) {
		t.Helper()
		if got := asTask("prod/users", ref); !strings.Contains(got, "has no valid signature") || !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %q", ref, got, why)
		}
	}
	one := b.pushImage("prod/users", "v1", "one")
	refused("v1", "there is none")
	b.cosign("prod/users", one, stranger, false)
	refused("v1", "not trusted")
	b.cosign("prod/users", one, key, true) // one that is right is enough
	if got := asTask("prod/users", "v1"); got != "" {
		t.Error(got)
	}
	if got := asTask("prod/users", string(one)); got != "" {
		t.Error(got)
	}

	// A signature of one image is none of another, wherever it is put.
	two := b.pushImage("prod/users", "v2", "two")
	signed := b.want(200, "GET", "/v2/prod/users/manifests/"+strings.Replace(string(one), ":", "-", 1)+".sig", nil)
	b.want(201, "PUT", "/v2/prod/users/manifests/"+strings.Replace(string(two), ":", "-", 1)+".sig", signed.body, mediaType(ociManifest))
	refused("v2", "not trusted")
	b.cosign("prod/users", two, key, false)
	if got := asTask("prod/users", "v2"); got != "" {
		t.Error(got)
	}

	// Who signs an index has signed what is in it.
	child := b.pushImage("prod/users", "child", "three")
	index := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{desc(ociManifest, child, len(b.want(200, "GET", "/v2/prod/users/manifests/child", nil).body))}})
	b.want(201, "PUT", "/v2/prod/users/manifests/multi", index, mediaType(ociIndex))
	refused("multi", "there is none")
	refused(string(child), "there is none")
	b.cosign("prod/users", blob.Sum([]byte(index)), key, true)
	for _, ref := range []string{"multi", string(child)} {
		if got := asTask("prod/users", ref); got != "" {
			t.Errorf("%s: %s", ref, got)
		}
	}

	// A bundle as cosign 3 makes it, and something that is no signature at all.
	four := b.pushImage("prod/users", "v4", "four")
	text := `{"dsseEnvelope": {}}`
	b.want(201, "PUT", "/v2/prod/users/manifests/notes", marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": "text/plain", "config": desc(ociConfig, b.pushBlob("prod/users", "{}"), 2),
		"layers": []any{desc("text/plain", b.pushBlob("prod/users", "notes"), 5)}, "subject": desc(ociManifest, four, 1)}), mediaType(ociManifest))
	refused("v4", "there is none")
	b.want(201, "PUT", "/v2/prod/users/manifests/bundle", marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": signature.Bundle, "config": desc(ociConfig, b.pushBlob("prod/users", "{}"), 2),
		"layers": []any{desc(signature.Bundle, b.pushBlob("prod/users", text), len(text))}, "subject": desc(ociManifest, four, 1)}), mediaType(ociManifest))
	refused("v4", "no statement in a DSSE envelope")

	b.want(200, "GET", "/v2/prod/users/manifests/v4", nil)
	b.pushImage("test/users", "v1", "unsigned")
	if got := asTask("test/users", "v1"); got != "" {
		t.Error(got)
	}
}
