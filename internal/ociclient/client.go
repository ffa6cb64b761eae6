// Package ociclient pulls and pushes OCI images: the one room that imports go-containerregistry. It resolves references,
// picks the platform, hands out verified bytes and says what went wrong in the registry's own words. It keeps nothing:
// unpacking and caching are the caller's business.
package ociclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Client talks to registries. The zero value is ready to use.
type Client struct {
	// PlainHTTP lists hosts ("registry.lan", "registry.lan:5000") that may be spoken to without TLS. Loopback addresses
	// and names below localhost always may; nobody else, whatever a redirect or a token realm says.
	PlainHTTP []string
	// Transport carries the requests; nil: http.DefaultTransport's settings, and names below localhost are this host.
	Transport http.RoundTripper
	// Platform chooses from an index; zero: this host's, on linux.
	Platform Platform
}

// Platform is an operating system and an architecture as Go names them.
type Platform struct{ OS, Arch string }

func (p Platform) String() string { return p.OS + "/" + p.Arch }

// Credentials for a registry; zero: anonymous.
type Credentials struct{ User, Password string }

// Image is a resolved image: its manifest was read, its config and layers were not.
type Image struct {
	// Digest of the manifest that the reference names: the index's when it is one.
	Digest string
	// ManifestDigest is the platform's own manifest's.
	ManifestDigest string
	image          v1.Image
}

// Layer is one layer of an image, lowest first in Image.Layers.
type Layer struct {
	DiffID string // "sha256:…" of the uncompressed tar
	Digest string // of the bytes that Open yields
	Size   int64  // of the bytes that Open yields
	open   func() (io.ReadCloser, error)
}

// Open streams the layer as it is stored, mostly compressed. Reading fails when the bytes do not match Digest and Size.
func (l Layer) Open() (io.ReadCloser, error) { return l.open() }

// Resolve reads the manifest that ref names. The context also bounds the layers' reading. Errors are *Error.
func (c *Client) Resolve(ctx context.Context, ref string, cred Credentials) (*Image, error) {
	r, err := c.parse(ref)
	if err != nil {
		return nil, &Error{Kind: Invalid, Ref: ref, Err: err}
	}
	desc, err := remote.Get(r, c.options(ctx, cred)...)
	if err != nil {
		return nil, classify(r.Name(), err)
	}
	if !desc.MediaType.IsIndex() && !desc.MediaType.IsImage() {
		return nil, &Error{Kind: Invalid, Ref: r.Name(), Err: fmt.Errorf("unsupported manifest media type %s", desc.MediaType)}
	}
	img, err := desc.Image()
	if err != nil {
		if strings.Contains(err.Error(), "no child with platform") {
			return nil, &Error{Kind: NoPlatform, Ref: r.Name(), Err: fmt.Errorf("image Manifest does not contain descriptor matching platform '%s'", c.platform())}
		}
		return nil, classify(r.Name(), err)
	}
	d, err := img.Digest()
	if err != nil {
		return nil, classify(r.Name(), err)
	}
	return &Image{Digest: desc.Digest.String(), ManifestDigest: d.String(), image: img}, nil
}

// Config reads the image's configuration.
func (i *Image) Config() (Config, error) {
	f, err := i.image.ConfigFile()
	if err != nil {
		return Config{}, classify(i.ManifestDigest, err)
	}
	return configOf(f), nil
}

// Layers lists the layers, lowest first.
func (i *Image) Layers() ([]Layer, error) {
	ls, err := i.image.Layers()
	if err != nil {
		return nil, classify(i.ManifestDigest, err)
	}
	out := make([]Layer, len(ls))
	for n, l := range ls {
		diffID, err := l.DiffID()
		if err != nil {
			return nil, classify(i.ManifestDigest, err)
		}
		digest, err := l.Digest()
		if err != nil {
			return nil, classify(i.ManifestDigest, err)
		}
		size, err := l.Size()
		if err != nil {
			return nil, classify(i.ManifestDigest, err)
		}
		out[n] = Layer{DiffID: diffID.String(), Digest: digest.String(), Size: size, open: func() (io.ReadCloser, error) {
			rc, err := l.Compressed()
			if err != nil {
				return nil, classify(digest.String(), err)
			}
			return rc, nil
		}}
	}
	return out, nil
}

func (c *Client) platform() Platform {
	if c.Platform != (Platform{}) {
		return c.Platform
	}
	return Platform{OS: "linux", Arch: runtime.GOARCH}
}

func (c *Client) parse(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref)
	if err == nil && c.plainHTTP(r.Context().RegistryStr()) {
		r, err = name.ParseReference(ref, name.Insecure)
	}
	return r, err
}

// plainHTTP says whether host ("name" or "name:port") may be spoken to without TLS.
func (c *Client) plainHTTP(host string) bool {
	if slices.Contains(c.PlainHTTP, host) {
		return true
	}
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = strings.Trim(host, "[]")
	}
	if slices.Contains(c.PlainHTTP, h) || h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return true
	}
	ip := net.ParseIP(h)
	return ip != nil && ip.IsLoopback()
}

func (c *Client) options(ctx context.Context, cred Credentials) []remote.Option {
	p := c.platform()
	auth := authn.Anonymous
	if cred != (Credentials{}) {
		auth = &authn.Basic{Username: cred.User, Password: cred.Password}
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(auth), remote.WithUserAgent("neargate"),
		remote.WithPlatform(v1.Platform{OS: p.OS, Architecture: p.Arch}),
		remote.WithTransport(c.transport()),
		// Trying again is the caller's decision: it knows how long the task may wait.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
}

// transport is how requests go.
func (c *Client) transport() http.RoundTripper {
	if c.Transport != nil {
		return tlsGuard{c, c.Transport}
	}
	return tlsGuard{c, defaultTransport()}
}

// defaultTransport knows that names below localhost are this host (RFC 6761), which most resolvers do not, and which must be so where
// such names may do without TLS.
var defaultTransport = sync.OnceValue(func() http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, ".localhost") {
			address = net.JoinHostPort("localhost", port)
		}
		return dial(ctx, network, address)
	}
	return t
})

var errPlainHTTP = errors.New("plain HTTP refused: the registry is neither on loopback nor configured as insecure")

// tlsGuard keeps credentials and images off unencrypted networks: go-containerregistry by itself falls back to plain
// HTTP for private addresses.
type tlsGuard struct {
	client *Client
	next   http.RoundTripper
}

func (g tlsGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.client.plainHTTP(r.URL.Host) {
		return nil, errPlainHTTP
	}
	return g.next.RoundTrip(r)
}
