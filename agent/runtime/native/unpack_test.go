//go:build linux && cgo

package native

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

type entry struct {
	tar.Header
	body string
}

func layerOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func regular(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name}, body}
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackRefusesHostileLayers(t *testing.T) {
	need(t)
	many := make([]entry, 50)
	for i := range many {
		many[i] = regular("f"+strings.Repeat("x", i), "")
	}
	for name, c := range map[string]struct {
		layer []byte
		words string
	}{
		"parent":                 {layerOf(t, regular("../../outside", "x")), "leaves the layer"},
		"hard link":              {layerOf(t, entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../../etc/passwd"}}), "leaves the layer"},
		"overlay's own":          {layerOf(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}, ""}), "trusted.overlay.redirect"},
		"too large":              {layerOf(t, regular("big", strings.Repeat("x", 3000))), "too large"},
		"too many":               {layerOf(t, many...), "too many entries"},
		"whiteout of the parent": {layerOf(t, regular("a/.wh...", "")), "whiteout"},
		"whiteout of itself":     {layerOf(t, regular("a/.wh..", "")), "whiteout"},
		"whiteout of nothing":    {layerOf(t, regular(".wh.", "")), "whiteout"},
		"name too long":          {layerOf(t, regular(strings.Repeat("n", 300), "")), "name too long"},
		"absolute hard link":     {layerOf(t, entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "/etc/passwd"}}), "no such file"},
		"hard link by a symlink": {layerOf(t, entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "/etc"}},
			entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "s/passwd"}}), "no such file"},
		"more behind its end": {append(layerOf(t, regular("small", "x")), make([]byte, 1<<20)...), "too large"},
		"small on the wire":   {zipped(t, append(layerOf(t, regular("small", "x")), make([]byte, 64<<20)...)), "too large"},
		"not a tar at all":    {[]byte(strings.Repeat("garbage ", 200)), "tar"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "root")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := unpack(t.Context(), dir, bytes.NewReader(c.layer), 2000, 40, 0)
			var refused *layerError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error = %v, want %q", err, c.words)
			}
			if e := pullError("x", err); e.(interface{ Error() string }) == nil || !strings.HasPrefix(e.Error(), "CannotPullContainerError: ") {
				t.Errorf("reason = %v", e)
			}
			if left, err := os.ReadDir(top); err != nil || len(left) != 1 {
				t.Errorf("beside the layer: %v, %v", left, err)
			}
		})
	}
}

// A symbolic link that leads out must not carry later entries out with it.
func TestUnpackStaysInsideBehindSymlinks(t *testing.T) {
	need(t)
	top := t.TempDir()
	dir, victim := filepath.Join(top, "root"), filepath.Join(top, "victim")
	for _, d := range []string{dir, victim} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layer := layerOf(t,
		entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: victim}},
		entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../victim"}},
		regular("out/a", "1"), regular("up/b", "2"),
		entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}})
	if _, err := unpack(t.Context(), dir, bytes.NewReader(layer), 1<<20, 100, 0); err != nil {
		t.Logf("refused: %v", err)
	}
	if left, err := os.ReadDir(victim); err != nil || len(left) != 0 {
		t.Errorf("written outside: %v, %v", left, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "null")); err == nil {
		t.Error("a device node was made")
	}
}

// Odd names, one name many times, pipes and set-id bits are made as the layer has them, and reach nothing but the layer.
func TestUnpackMakesOddLayersHarmless(t *testing.T) {
	need(t)
	top := t.TempDir()
	dir, victim := filepath.Join(top, "root"), filepath.Join(top, "victim")
	for _, d := range []string{dir, victim} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"new\nline", "\xff\xfe", "-rf", " ", "...", "a:b,c=d", strings.Repeat("n", 255)}
	var odd []entry
	for _, n := range names {
		odd = append(odd, regular(n, "x"))
	}
	link := func(name, to string) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}}
	}
	odd = append(odd,
		link("d", victim), regular("d", "no longer a link"), link("d", "../victim"), entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}}, regular("d/x", "inside"),
		link("loop", "loop"), link("deep", "/../../../../victim"), regular("deep/y", "inside as well"),
		entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"}},
		entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 8}}, entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "mem", Devmajor: 1, Devminor: 1}},
		entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o6755}})
	if _, err := unpack(t.Context(), dir, bytes.NewReader(layerOf(t, odd...)), 1<<20, 100, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range append(names, "d/x") {
		if st, err := os.Lstat(filepath.Join(dir, n)); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%q: %v, %v", n, st, err)
		}
	}
	for _, n := range []string{"disk", "mem"} {
		if _, err := os.Lstat(filepath.Join(dir, n)); err == nil {
			t.Errorf("device %s was made", n)
		}
	}
	if left, err := os.ReadDir(victim); err != nil || len(left) != 0 {
		t.Errorf("written outside: %v, %v", left, err)
	}
	if left, err := os.ReadDir(top); err != nil || len(left) != 2 {
		t.Errorf("beside the layer: %v, %v", left, err)
	}
}

// Names and attributes are remembered until the end of a layer, so they are bounded together.
func TestUnpackBoundsWhatItRemembers(t *testing.T) {
	g := &entryGate{bytes: 1, entries: 100, metadata: 100}
	small := &tar.Header{Typeflag: tar.TypeDir, Name: "0123456789", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "01234567890"}}
	for n := range 3 {
		if ok, err := g.admit(small); ok != (n < 2) || (err == nil) != ok {
			t.Errorf("entry %d: %v, %v", n, ok, err)
		}
	}
}

// Unpacking stops while the host still has the room that it needs itself.
func TestUnpackKeepsTheDiskFree(t *testing.T) {
	need(t)
	dir := smallDisk(t, "200m")
	large := entry{body: strings.Repeat("x", 120<<20)}
	large.Header = tar.Header{Typeflag: tar.TypeReg, Name: "large"}
	_, err := unpack(t.Context(), dir, bytes.NewReader(zipped(t, layerOf(t, large))), 1<<30, 10, 190<<20)
	if err == nil || !strings.Contains(err.Error(), "no space left on device: of the host's disk") || errors.As(err, new(*layerError)) {
		t.Errorf("%v", err)
	}
}

func TestUnpackCompressions(t *testing.T) {
	need(t)
	plain := layerOf(t, regular("a/b", "content"), entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2775, Uid: 5, Gid: 6}})
	sum := sha256.Sum256(plain)
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(plain)
	g.Close()
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(plain)
	z.Close()
	for name, b := range map[string][]byte{"none": plain, "gzip": gz.Bytes(), "zstd": zs.Bytes()} {
		dir := t.TempDir()
		got, err := unpack(t.Context(), dir, bytes.NewReader(b), 1<<20, 100, 0)
		if err != nil || got != "sha256:"+hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "a/b")); string(b) != "content" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if st, err := os.Stat(filepath.Join(dir, "d")); err != nil || st.Mode() != os.ModeDir|os.ModeSetgid|0o775 {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
	// What is cut off is refused.
	if _, err := unpack(t.Context(), t.TempDir(), bytes.NewReader(gz.Bytes()[:gz.Len()-10]), 1<<20, 100, 0); err == nil {
		t.Error("a truncated layer was taken")
	}
}
