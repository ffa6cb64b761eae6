package ociclient

import (
	"context"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Manifest reads the manifest that ref names as it is stored, whatever its media type. Errors are *Error.
func (c *Client) Manifest(ctx context.Context, ref string, cred Credentials) (body []byte, mediaType string, err error) {
	r, err := c.parse(ref)
	if err != nil {
		return nil, "", &Error{Kind: Invalid, Ref: ref, Err: err}
	}
	desc, err := remote.Get(r, c.options(ctx, cred)...)
	if err != nil {
		return nil, "", classify(r.Name(), err)
	}
	return desc.Manifest, string(desc.MediaType), nil
}

// Blob streams a blob of a repository ("host/name"). Reading fails when the bytes do not match the digest. Errors are *Error.
func (c *Client) Blob(ctx context.Context, repository, digest string, cred Credentials) (io.ReadCloser, error) {
	ref := repository + "@" + digest
	r, err := c.parse(ref)
	if err != nil {
		return nil, &Error{Kind: Invalid, Ref: ref, Err: err}
	}
	d, ok := r.(name.Digest)
	if !ok {
		return nil, &Error{Kind: Invalid, Ref: ref, Err: fmt.Errorf("%q is not a digest", digest)}
	}
	l, err := remote.Layer(d, c.options(ctx, cred)...)
	if err != nil {
		return nil, classify(r.Name(), err)
	}
	rc, err := l.Compressed()
	if err != nil {
		return nil, classify(r.Name(), err)
	}
	return rc, nil
}

// Ping asks a registry ("host:port") whether it is one and lets the credentials in. Errors are *Error.
func (c *Client) Ping(ctx context.Context, registry string, cred Credentials) error {
	opts := []name.Option{name.StrictValidation}
	if c.plainHTTP(registry) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(registry, opts...)
	if err != nil {
		return &Error{Kind: Invalid, Ref: registry, Err: err}
	}
	auth := authn.Anonymous
	if cred != (Credentials{}) {
		auth = &authn.Basic{Username: cred.User, Password: cred.Password}
	}
	if _, err := transport.NewWithContext(ctx, reg, auth, c.transport(), nil); err != nil {
		return classify(registry, err)
	}
	return nil
}
