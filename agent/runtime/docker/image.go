package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Pull lets the engine pull. An image whose reference is a digest and that is there already is not asked for again.
func (d *Driver) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	var opts image.PullOptions
	if req.User != "" || req.Password != "" {
		auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: req.User, Password: req.Password})
		if err != nil {
			return runtime.Image{}, pullError(req.Image, err)
		}
		opts.RegistryAuth = auth
	}
	body, err := d.cli.ImagePull(ctx, req.Image, opts)
	if err != nil {
		return runtime.Image{}, pullError(req.Image, err)
	}
	defer body.Close()
	if err := follow(body, req.Progress); err != nil {
		return runtime.Image{}, pullError(req.Image, err)
	}
	in, err := d.cli.ImageInspect(ctx, req.Image)
	if err != nil {
		return runtime.Image{}, pullError(req.Image, err)
	}
	img := runtime.Image{StopSignal: "SIGTERM"}
	repo, _, _ := strings.Cut(req.Image, "@")
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo = repo[:i]
	}
	for _, r := range in.RepoDigests {
		if name, digest, ok := strings.Cut(r, "@"); ok && (img.Digest == "" || name == repo) {
			img.Digest = digest
		}
	}
	if in.Config != nil {
		if in.Config.StopSignal != "" {
			img.StopSignal = in.Config.StopSignal
		}
		for p := range in.Config.ExposedPorts {
			img.ExposedPorts = append(img.ExposedPorts, string(p))
		}
		slices.Sort(img.ExposedPorts)
	}
	return img, nil
}

// follow reads the engine's progress to its end; an error in it is the pull's.
func follow(r io.Reader, progress func(done, total int64)) error {
	type layer struct{ done, total int64 }
	layers := map[string]layer{}
	for dec := json.NewDecoder(r); ; {
		var m struct {
			ID             string `json:"id"`
			Status         string `json:"status"`
			Error          string `json:"error"`
			ProgressDetail struct{ Current, Total int64 }
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if progress == nil || m.Status != "Downloading" {
			continue
		}
		layers[m.ID] = layer{m.ProgressDetail.Current, m.ProgressDetail.Total}
		var sum layer
		for _, l := range layers {
			sum.done += l.done
			sum.total += l.total
		}
		progress(sum.done, sum.total)
	}
}

// pullError classifies by what the engine says: it passes on the registry's answer only as text.
func pullError(ref string, err error) *runtime.PullError {
	text := err.Error()
	if strings.Contains(text, "no matching manifest") { // ECS's words
		text = fmt.Sprintf("image Manifest does not contain descriptor matching platform 'linux/%s'", goruntime.GOARCH)
	}
	final := errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err)
	for _, s := range []string{"not found", "manifest unknown", "name unknown", "does not exist", "denied", "unauthorized", "no basic auth", "matching platform", "invalid reference", "authentication required"} {
		final = final || strings.Contains(strings.ToLower(text), s)
	}
	return &runtime.PullError{Reason: fmt.Sprintf("CannotPullContainerError: pull %s: %s", ref, text), Retryable: !final, Err: err}
}

// pauseImage is what sandboxes run: a program of a few instructions that waits for ever.
const pauseImage = "neargate/pause:1"

// pauseCode is `for { pause() }` for each architecture: pause(2) on amd64; arm64 has ppoll(NULL, 0, NULL, NULL) for it.
var pauseCode = map[string]struct {
	machine uint16
	code    []byte
}{
	"amd64": {0x3e, []byte{0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}},
	"arm64": {0xb7, []byte{0x28, 0x09, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 1, 0, 0x80, 0xd2, 2, 0, 0x80, 0xd2, 3, 0, 0x80, 0xd2, 1, 0, 0, 0xd4, 0xfa, 0xff, 0xff, 0x17}},
}

// pauseProgram is an ELF file of a header, one segment and the code.
func pauseProgram(arch string) ([]byte, error) {
	p, ok := pauseCode[arch]
	if !ok {
		return nil, fmt.Errorf("no sandbox program for %s", arch)
	}
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append(make([]byte, 0, 256), 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, p.machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headers) // entry
	b = le.AppendUint64(b, 64)           // program headers follow
	b = le.AppendUint64(b, 0)            // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and counts of headers
		b = le.AppendUint16(b, v)
	}
	size := uint64(headers + len(p.code))
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // readable, executable
	for _, v := range []uint64{0, base, base, size, size, 0x10000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, p.code...), nil
}

// ensurePause loads the sandbox's image unless the engine has it.
func (d *Driver) ensurePause(ctx context.Context) error {
	if _, err := d.cli.ImageInspect(ctx, pauseImage); err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	archive, err := pauseArchive(goruntime.GOARCH)
	if err != nil {
		return err
	}
	answer, err := d.cli.ImageLoad(ctx, bytes.NewReader(archive))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return follow(answer.Body, nil)
}

// pauseArchive is the image in the form of `docker save`.
func pauseArchive(arch string) ([]byte, error) {
	program, err := pauseProgram(arch)
	if err != nil {
		return nil, err
	}
	layer, err := tarball(map[string][]byte{"pause": program}, 0o755)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/pause"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{pauseImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	return tarball(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest}, 0o644)
}

func tarball(files map[string][]byte, mode int64) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// removePause removes the sandbox's image; the engine refuses while somebody uses it.
func (d *Driver) removePause(ctx context.Context) error {
	_, err := d.cli.ImageRemove(ctx, pauseImage, image.RemoveOptions{})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return err
}
