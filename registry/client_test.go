package registry_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestClient pushes, copies and pulls with go-containerregistry: Docker and OCI images, an index of both, a copy that mounts.
func TestClient(t *testing.T) {
	b := newBench(t)
	b.create("users", "copy")
	auth := remote.WithAuth(&authn.Basic{Username: "AWS", Password: b.token})
	ref := func(s string) name.Reference {
		r, err := name.ParseReference(b.host() + "/" + s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	docker := imageFor(t, "amd64")
	oci := mutate.ConfigMediaType(mutate.MediaType(imageFor(t, "arm64"), types.OCIManifestSchema1), types.OCIConfigJSON)
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: docker, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: oci, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})

	for tag, img := range map[string]v1.Image{"docker": docker, "oci": oci} {
		if err := remote.Write(ref("users:"+tag), img, auth); err != nil {
			t.Fatalf("push %s: %v", tag, err)
		}
		got, err := remote.Image(ref("users:"+tag), auth)
		if err != nil {
			t.Fatalf("pull %s: %v", tag, err)
		}
		same(t, img, got)
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
	if err := remote.WriteIndex(ref("users:multi"), index, auth); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Index(ref("users:multi"), auth)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pulled); err != nil {
		t.Error(err)
	}
	arm, err := remote.Image(ref("users:multi"), auth, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "arm64"}))
	if err != nil {
		t.Fatal(err)
	}
	same(t, oci, arm)

	source, err := remote.Image(ref("users:docker"), auth)
	if err != nil {
		t.Fatal(err)
	}
	// One at a time: go-containerregistry's writers race with one another over the scopes of mounts.
	if err := remote.Write(ref("copy:v1"), source, auth, remote.WithJobs(1)); err != nil {
		t.Fatal(err)
	}
	tags, err := remote.List(ref("users").Context(), auth)
	if err != nil || len(tags) != 3 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if _, err := remote.Image(ref("users:docker")); err == nil {
		t.Error("an anonymous pull succeeded")
	}
}

func imageFor(t *testing.T, architecture string) v1.Image {
	t.Helper()
	img, err := random.Image(100<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func same(t *testing.T, want, got v1.Image) {
	t.Helper()
	w, err := want.Digest()
	if err != nil {
		t.Fatal(err)
	}
	g, err := got.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if w != g {
		t.Errorf("digest %s, want %s", g, w)
	}
}

// TestReferrersClient attaches a signature and an SBOM to an image, as oras does, and finds them by its digest. A pull of the image does not
// mind them.
func TestReferrersClient(t *testing.T) {
	b := newBench(t)
	b.create("users")
	auth := remote.WithAuth(&authn.Basic{Username: "AWS", Password: b.token})
	repo, err := name.NewRepository(b.host() + "/users")
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(imageFor(t, "amd64"), types.OCIManifestSchema1), types.OCIConfigJSON)
	if err := remote.Write(repo.Tag("v1"), img, auth); err != nil {
		t.Fatal(err)
	}
	subject, err := remote.Head(repo.Tag("v1"), auth)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, kind := range []string{"application/vnd.example.signature.v1+json", "application/vnd.example.sbom.v1+json"} {
		layer, err := random.Layer(100, types.MediaType(kind))
		if err != nil {
			t.Fatal(err)
		}
		artifact, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(kind)), layer)
		if err != nil {
			t.Fatal(err)
		}
		attached := mutate.Subject(artifact, *subject).(v1.Image)
		digest, err := attached.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(repo.Digest(digest.String()), attached, auth); err != nil {
			t.Fatal(err)
		}
		want[kind+" "+digest.String()] = true
	}
	index, err := remote.Referrers(repo.Digest(subject.Digest.String()), auth)
	if err != nil {
		t.Fatal(err)
	}
	found, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found.Manifests {
		key := m.ArtifactType + " " + m.Digest.String()
		if !want[key] {
			t.Errorf("an unexpected referrer %s", key)
		}
		delete(want, key)
	}
	for missing := range want {
		t.Errorf("not found: %s", missing)
	}
	got, err := remote.Image(repo.Digest(subject.Digest.String()), auth)
	if err != nil {
		t.Fatal(err)
	}
	same(t, img, got)
}
