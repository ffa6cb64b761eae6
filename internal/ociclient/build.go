package ociclient

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Config is the part of an image's configuration that running it needs.
type Config struct {
	Platform     Platform
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	User         string
	ExposedPorts []string // "80/tcp", sorted
	StopSignal   string
	Labels       map[string]string
	DiffIDs      []string // lowest layer first
}

func configOf(f *v1.ConfigFile) Config {
	c := f.Config
	out := Config{Platform: Platform{f.OS, f.Architecture}, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir,
		User: c.User, ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)), StopSignal: c.StopSignal, Labels: c.Labels}
	for _, d := range f.RootFS.DiffIDs {
		out.DiffIDs = append(out.DiffIDs, d.String())
	}
	return out
}

// Built is an image in memory, ready to push.
type Built struct {
	image    v1.Image
	platform Platform
}

// Build makes an image from tar headers and their contents, one slice a layer, lowest first: what FROM scratch with COPY does.
func Build(cfg Config, layers ...[]File) (*Built, error) {
	if cfg.Platform == (Platform{}) {
		cfg.Platform = (&Client{}).platform()
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	var all []v1.Layer
	for _, files := range layers {
		b, err := tarOf(files)
		if err != nil {
			return nil, err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
			tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, fmt.Errorf("build layer: %w", err)
		}
		all = append(all, l)
	}
	img, err := mutate.AppendLayers(img, all...) // at once: one by one takes time that grows with their square
	if err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	f, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("build config: %w", err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = cfg.Platform.OS, cfg.Platform.Arch
	f.Config = v1.Config{Env: cfg.Env, Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, WorkingDir: cfg.WorkingDir, User: cfg.User,
		StopSignal: cfg.StopSignal, Labels: cfg.Labels}
	if len(cfg.ExposedPorts) > 0 {
		f.Config.ExposedPorts = map[string]struct{}{}
		for _, p := range cfg.ExposedPorts {
			f.Config.ExposedPorts[p] = struct{}{}
		}
	}
	if img, err = mutate.ConfigFile(img, f); err != nil {
		return nil, fmt.Errorf("build config: %w", err)
	}
	return &Built{image: img, platform: cfg.Platform}, nil
}

// File is one tar entry of a layer.
type File struct {
	tar.Header
	Body []byte
}

// Executable is a file with mode 0755.
func Executable(name string, body []byte) File {
	return File{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, Body: body}
}

// Text is a file with mode 0644.
func Text(name, body string) File {
	return File{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, Body: []byte(body)}
}

// Dir is a directory.
func Dir(name string, mode int64) File {
	return File{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

// Symlink is a symbolic link.
func Symlink(name, target string) File {
	return File{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func tarOf(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if f.Typeflag == tar.TypeReg {
			f.Size = int64(len(f.Body))
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.Name, err)
		}
		if _, err := w.Write(f.Body); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Push writes one image, or an index when given several, and returns the digest that ref now names.
func (c *Client) Push(ctx context.Context, ref string, cred Credentials, images ...*Built) (string, error) {
	r, err := c.parse(ref)
	if err != nil {
		return "", &Error{Kind: Invalid, Ref: ref, Err: err}
	}
	opts := c.options(ctx, cred)
	if len(images) == 1 {
		if err := remote.Write(r, images[0].image, opts...); err != nil {
			return "", classify(r.Name(), err)
		}
		d, err := images[0].image.Digest()
		return d.String(), err
	}
	index := v1.ImageIndex(mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	for _, b := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: b.image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: b.platform.OS, Architecture: b.platform.Arch}}})
	}
	if err := remote.WriteIndex(r, index, opts...); err != nil {
		return "", classify(r.Name(), err)
	}
	d, err := index.Digest()
	return d.String(), err
}
