package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Media types of the manifests we keep. Docker's schema 1 is not among them: it has no content address.
const (
	mediaTypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

const (
	maxManifestBytes = 4 << 20
	// maxReferences bounds config, layers and children of one manifest: its record and the guards of its transaction have to fit
	// into one. ECR has stated no limit since Docker's 127 went from its quotas; PutImage may answer LimitExceededException.
	maxReferences = 2000
	// maxAnnotationBytes bounds the annotations of a manifest with a subject, which its record keeps.
	maxAnnotationBytes = 64 << 10
)

// descriptor is the part of an OCI descriptor that a registry looks at.
type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
}

// foreign layers live elsewhere and need not be pushed.
func (d descriptor) foreign() bool {
	return len(d.URLs) > 0 || strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.")
}

// document is a parsed manifest.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *descriptor       `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Manifests     []descriptor      `json:"manifests"`
	Subject       *descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// blobs are config and layers.
func (d *document) blobs() []descriptor {
	if d.Config == nil {
		return d.Layers
	}
	return append([]descriptor{*d.Config}, d.Layers...)
}

// parseManifest checks a manifest of the media type that the client declared (empty: what the manifest says itself). The
// messages of its errors are for the client.
func parseManifest(declared string, body []byte) (*document, error) {
	if len(body) > maxManifestBytes {
		return nil, fmt.Errorf("a manifest has at most %d bytes", maxManifestBytes)
	}
	var doc document
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("not a JSON manifest: %w", err)
	}
	declared, _, _ = strings.Cut(declared, ";")
	declared = strings.TrimSpace(declared)
	switch {
	case doc.MediaType == "":
		doc.MediaType = declared
	case declared != "" && declared != doc.MediaType:
		return nil, fmt.Errorf("the manifest's mediaType %q differs from the Content-Type %q", doc.MediaType, declared)
	}
	if doc.MediaType == "" { // OCI 1.0 manifests may leave it out
		doc.MediaType = mediaTypeOCIManifest
		if doc.Manifests != nil {
			doc.MediaType = mediaTypeOCIIndex
		}
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("schemaVersion %d is not supported; 2 is", doc.SchemaVersion)
	}
	switch doc.MediaType {
	case mediaTypeOCIManifest, mediaTypeDockerManifest:
		if doc.Config == nil {
			return nil, fmt.Errorf("the manifest has no config")
		}
		if doc.Manifests != nil {
			return nil, fmt.Errorf("a manifest of type %s has no manifests", doc.MediaType)
		}
	case mediaTypeOCIIndex, mediaTypeDockerList:
		if doc.Config != nil || doc.Layers != nil {
			return nil, fmt.Errorf("a manifest of type %s has neither config nor layers", doc.MediaType)
		}
	default:
		return nil, fmt.Errorf("media type %q is not supported", doc.MediaType)
	}
	return &doc, doc.check()
}

func (d *document) check() error {
	all := append(d.blobs(), d.Manifests...)
	if len(all) > maxReferences {
		return awserr.New("LimitExceededException", "The image manifest refers to %d layers and images, more than the %d that it may", len(all), maxReferences)
	}
	if d.Subject != nil {
		all = append(all, *d.Subject)
		size := 0
		for k, v := range maps.All(d.Annotations) {
			size += len(k) + len(v)
		}
		if size > maxAnnotationBytes {
			return fmt.Errorf("the annotations have %d bytes, more than %d", size, maxAnnotationBytes)
		}
	}
	for _, x := range all {
		if _, err := blob.ParseDigest(x.Digest); err != nil {
			return err
		}
		if x.Size < 0 {
			return fmt.Errorf("descriptor %s has size %d", x.Digest, x.Size)
		}
	}
	if len(d.ArtifactType) > 256 || len(d.MediaType) > 256 || (d.Config != nil && len(d.Config.MediaType) > 256) {
		return fmt.Errorf("a media type has at most 256 characters")
	}
	return nil
}
