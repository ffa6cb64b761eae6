package scan

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// file is an entry of a layer made for a test.
type file struct {
	name, content string
	mode          int64
	kind          byte
	link          string
}

func layerOf(t testing.TB, compress string, files ...file) Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: max(f.mode, 0o644), Typeflag: f.kind, Linkname: f.link}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := b.Bytes()
	switch compress {
	case "gzip":
		var z bytes.Buffer
		g := gzip.NewWriter(&z)
		g.Write(out)
		g.Close()
		out = z.Bytes()
	case "zstd":
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = e.EncodeAll(out, nil)
	}
	return bytesLayer(out)
}

func bytesLayer(b []byte) Layer {
	return Layer{Digest: "sha256:" + strings.Repeat("0", 60) + "0000", Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

func numbered(layers ...Layer) []Layer {
	for i := range layers {
		layers[i].Digest = string(rune('a' + i))
	}
	return layers
}

const (
	debianRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"
	debianStatus  = `Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
Description: GNU C Library
 Package: not a field

Package: gone
Status: deinstall ok config-files
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Source: bash (5.2.15-2)
Version: 5.2.15-2+b2
`
	alpineRelease   = "ID=alpine\nVERSION_ID=3.16.1\n"
	alpineInstalled = `C:Q1abc=
P:zlib
V:1.2.12-r1
A:x86_64
o:zlib

C:Q1def=
P:libcrypto1.1
V:1.1.1q-r0
A:x86_64
o:openssl
F:lib
R:libcrypto.so.1.1
`
)

// short writes packages so that tests can be read.
func short(i *Inventory) (out []string) {
	for _, p := range i.Packages {
		out = append(out, p.Ecosystem+" "+p.Name+" "+p.Version+" "+p.Source+" "+p.Origin+" "+p.Layer+" "+p.Path)
	}
	return out
}

func TestTake(t *testing.T) {
	base := []file{{name: "etc/", kind: tar.TypeDir}, {name: "./etc/os-release", content: debianRelease}, {name: "var/lib/dpkg/status", content: debianStatus}}
	glibc := "Debian:12 libc6 2.36-9 glibc 2.36-9 "
	bash := "Debian:12 bash 5.2.15-2+b2 bash 5.2.15-2 "
	for _, c := range []struct {
		name   string
		layers []Layer
		want   []string
	}{
		{"dpkg, in any compression", numbered(layerOf(t, "gzip", base[1]), layerOf(t, "zstd", base[2])),
			[]string{glibc + "b var/lib/dpkg/status", bash + "b var/lib/dpkg/status"}},
		{"a later layer counts", numbered(layerOf(t, "", base...), layerOf(t, "", file{name: "var/lib/dpkg/status", content: strings.ReplaceAll(debianStatus, "2.36-9", "2.36-9+deb12u3")})),
			[]string{"Debian:12 libc6 2.36-9+deb12u3 glibc 2.36-9+deb12u3 b var/lib/dpkg/status", bash + "b var/lib/dpkg/status"}},
		{"distroless", numbered(layerOf(t, "", file{name: "usr/lib/os-release", content: debianRelease},
			file{name: "var/lib/dpkg/status.d/base", content: "Package: base-files\nVersion: 12.4\n"}, file{name: "var/lib/dpkg/status.d/base.md5sums", content: "Package: x\nVersion: 1\n"})),
			[]string{"Debian:12 base-files 12.4 base-files 12.4 a var/lib/dpkg/status.d/base"}},
		{"apk", numbered(layerOf(t, "", file{name: "etc/os-release", content: alpineRelease}, file{name: "lib/apk/db/installed", content: alpineInstalled})),
			[]string{"Alpine:v3.16 zlib 1.2.12-r1 zlib 1.2.12-r1 a lib/apk/db/installed", "Alpine:v3.16 libcrypto1.1 1.1.1q-r0 openssl 1.1.1q-r0 a lib/apk/db/installed"}},
		{"names that mean the same", numbered(layerOf(t, "", file{name: "/etc/os-release", content: alpineRelease}, file{name: "../../lib/./apk/db/installed", content: alpineInstalled[:45]})),
			[]string{"Alpine:v3.16 zlib 1.2.12-r1 zlib 1.2.12-r1 a lib/apk/db/installed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := Take(t.Context(), c.layers, DefaultLimits, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if got := short(i); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestTakeNothing(t *testing.T) {
	base := layerOf(t, "", file{name: "etc/os-release", content: debianRelease}, file{name: "var/lib/dpkg/status", content: debianStatus})
	for name, layers := range map[string][]Layer{
		"no layers":                        {},
		"nothing known":                    {layerOf(t, "", file{name: "bin/sh", content: strings.Repeat("x", 5000), mode: 0o755})},
		"an unknown distribution":          {layerOf(t, "", file{name: "etc/os-release", content: "ID=plan9\n"}, file{name: "var/lib/dpkg/status", content: debianStatus})},
		"whited out":                       {base, layerOf(t, "", file{name: "var/lib/dpkg/.wh.status"})},
		"its folder whited out":            {base, layerOf(t, "", file{name: "var/lib/.wh.dpkg"})},
		"its folder made opaque":           {base, layerOf(t, "", file{name: "var/.wh..wh..opq"})},
		"the root made opaque":             {base, layerOf(t, "", file{name: ".wh..wh..opq"})},
		"its folder replaced by a file":    {base, layerOf(t, "", file{name: "var/lib", content: "x"})},
		"replaced by a link":               {base, layerOf(t, "", file{name: "var/lib/dpkg/status", kind: tar.TypeSymlink, link: "/etc/shadow"})},
		"replaced by a device, later gone": {base, layerOf(t, "", file{name: "var/lib/dpkg/status", kind: tar.TypeChar}), layerOf(t, "", file{name: "var/lib/dpkg/.wh.status"})},
	} {
		t.Run(name, func(t *testing.T) {
			if i, err := Take(t.Context(), layers, DefaultLimits, t.TempDir()); !errors.Is(err, ErrUnsupported) {
				t.Errorf("got %v, %v", i, err)
			}
		})
	}
	t.Run("an opaque folder keeps what its own layer has", func(t *testing.T) {
		i, err := Take(t.Context(), []Layer{base, layerOf(t, "", file{name: "var/lib/dpkg/status", content: debianStatus}, file{name: "var/.wh..wh..opq"})}, DefaultLimits, t.TempDir())
		if err != nil || len(i.Packages) != 2 {
			t.Errorf("got %v, %v", i, err)
		}
	})
}

// This test's own program is made by Go, and large.
func TestTakeProgram(t *testing.T) {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if len(own) <= inMemory {
		t.Fatalf("the program has only %d bytes", len(own))
	}
	scratch := t.TempDir()
	l := layerOf(t, "gzip", file{name: "app", content: string(own), mode: 0o755}, file{name: "data", content: string(own[:inMemory])}, file{name: "broken", content: string(own[:100000]), mode: 0o755})
	i, err := Take(t.Context(), []Layer{l}, DefaultLimits, scratch)
	if err != nil {
		t.Fatal(err)
	}
	if p := i.Packages[0]; p.Ecosystem != "Go" || p.Path != "app" || p.Manager != "GOBINARY" || p.Name != "stdlib" || p.Version != goVersion(runtime.Version()) {
		t.Errorf("got %+v", p)
	}
	if left, _ := os.ReadDir(scratch); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestModules(t *testing.T) {
	got := modules(&buildinfo.BuildInfo{GoVersion: "go1.21.2", Main: debug.Module{Path: "example.com/app", Version: "(devel)"}, Deps: []*debug.Module{
		{Path: "golang.org/x/net", Version: "v0.16.0"},
		{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v2.0.0"}},
		{Path: "example.com/local", Version: "v1.0.0", Replace: &debug.Module{Path: "./local"}},
	}})
	var names []string
	for _, p := range got {
		names = append(names, p.Source+"@"+p.Origin)
	}
	if want := []string{"stdlib@1.21.2", "golang.org/x/net@0.16.0", "example.com/new@2.0.0"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestTakeRefuses(t *testing.T) {
	status := file{name: "var/lib/dpkg/status", content: debianStatus}
	for name, c := range map[string]struct {
		limits Limits
		layer  Layer
		want   string
	}{
		"bytes":     {Limits{Bytes: 1000, Entries: 10, Databases: 1 << 20}, layerOf(t, "gzip", file{name: "zeros", content: strings.Repeat("\x00", 100000)}), "unpacks to too much"},
		"entries":   {Limits{Bytes: 1 << 20, Entries: 1, Databases: 1 << 20}, layerOf(t, "", status, status), "too many files"},
		"databases": {Limits{Bytes: 1 << 20, Entries: 10, Databases: 100}, layerOf(t, "", status), "too much about"},
		"not a tar": {DefaultLimits, bytesLayer([]byte(strings.Repeat("no archive at all ", 100))), "tar"},
		"cut":       {DefaultLimits, bytesLayer([]byte{0x1f, 0x8b, 8, 0}), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := Take(t.Context(), []Layer{c.layer}, c.limits, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "sha256:") {
				t.Errorf("got %v, %v, want %q and the layer", i, err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, []Layer{layerOf(t, "", status)}, DefaultLimits, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzTake(f *testing.F) {
	f.Add([]byte(debianStatus), []byte(alpineInstalled))
	f.Fuzz(func(t *testing.T, status, installed []byte) {
		for _, p := range append(dpkg(status), apk(installed)...) {
			if p.Name == "" || p.Version == "" {
				t.Errorf("got %+v", p)
			}
		}
	})
}
