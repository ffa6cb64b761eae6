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
		"parent":           {layerOf(t, regular("../../outside", "x")), "leaves the layer"},
		"hard link":        {layerOf(t, entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../../etc/passwd"}}), "leaves the layer"},
		"overlay's own":    {layerOf(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}, ""}), "trusted.overlay.redirect"},
		"too large":        {layerOf(t, regular("big", strings.Repeat("x", 3000))), "too large"},
		"too many":         {layerOf(t, many...), "too many entries"},
		"not a tar at all": {[]byte(strings.Repeat("garbage ", 200)), "tar"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "root")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := unpack(t.Context(), dir, bytes.NewReader(c.layer), 2000, 40)
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
	if _, err := unpack(t.Context(), dir, bytes.NewReader(layer), 1<<20, 100); err != nil {
		t.Logf("refused: %v", err)
	}
	if left, err := os.ReadDir(victim); err != nil || len(left) != 0 {
		t.Errorf("written outside: %v, %v", left, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "null")); err == nil {
		t.Error("a device node was made")
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
		got, err := unpack(t.Context(), dir, bytes.NewReader(b), 1<<20, 100)
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
	if _, err := unpack(t.Context(), t.TempDir(), bytes.NewReader(gz.Bytes()[:gz.Len()-10]), 1<<20, 100); err == nil {
		t.Error("a truncated layer was taken")
	}
}
