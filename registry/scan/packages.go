package scan

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
)

// Where package managers keep what is installed.
const (
	dpkgStatus       = "var/lib/dpkg/status"
	dpkgStatusFolder = "var/lib/dpkg/status.d/"
	apkInstalled     = "lib/apk/db/installed"
	apkInstalledNew  = "usr/lib/apk/db/installed" // where /lib is a link
)

// inventory brings together what the files say.
func inventory(files map[string]found) (*Inventory, error) {
	i := &Inventory{Packages: []Package{}}
	release, ok := files["etc/os-release"]
	if !ok { // usually a link to it
		release = files["usr/lib/os-release"]
	}
	i.Distribution, i.Release = osRelease(release.database)
	ecosystem := ecosystemOf(i.Distribution, i.Release)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		packages := f.packages
		switch {
		case ecosystem == "":
		case name == dpkgStatus, strings.HasPrefix(name, dpkgStatusFolder):
			packages = dpkg(f.database)
		case name == apkInstalled, name == apkInstalledNew:
			packages = apk(f.database)
		}
		for _, p := range packages {
			p.Layer, p.Path = f.layer, name
			p.Ecosystem = cmp.Or(p.Ecosystem, ecosystem)
			i.Packages = append(i.Packages, p)
		}
	}
	if len(i.Packages) == 0 {
		return nil, ErrUnsupported
	}
	return i, nil
}

// osRelease reads ID and VERSION_ID.
func osRelease(text []byte) (id, version string) {
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = strings.ToLower(value)
		case "VERSION_ID":
			version = value
		}
	}
	return id, version
}

// ecosystemOf is OSV's name for a distribution's release; empty for those that it, or this package, does not know.
func ecosystemOf(distribution, release string) string {
	major, rest, _ := strings.Cut(release, ".")
	switch distribution {
	case "debian":
		return "Debian:" + major // empty in testing and unstable, which have no advisories
	case "ubuntu":
		// Releases for long: every April of an even year.
		if rest == "04" && major != "" && (major[len(major)-1]-'0')%2 == 0 {
			return "Ubuntu:" + release + ":LTS"
		}
		return "Ubuntu:" + release
	case "alpine":
		minor, _, _ := strings.Cut(rest, ".")
		return "Alpine:v" + major + "." + minor
	case "wolfi":
		return "Wolfi"
	case "chainguard":
		return "Chainguard"
	}
	return ""
}

// paragraphs calls f with the fields of each paragraph of a Debian control file. Lines that go on are left out: none that matter do.
func paragraphs(text []byte, f func(fields map[string]string)) {
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 4<<20)
	fields := map[string]string{}
	for s.Scan() {
		line := s.Text()
		if line == "" {
			if len(fields) > 0 {
				f(fields)
				clear(fields)
			}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	if len(fields) > 0 {
		f(fields)
	}
}

// dpkg reads /var/lib/dpkg/status.
func dpkg(text []byte) (out []Package) {
	paragraphs(text, func(f map[string]string) {
		// "install ok installed"; distroless has no such line. What is "deinstall ok config-files" is gone.
		if status, ok := f["Status"]; f["Package"] == "" || f["Version"] == "" || ok && !strings.HasSuffix(status, " installed") {
			return
		}
		p := Package{Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], Manager: "OS", Source: f["Package"], Origin: f["Version"]}
		if source := f["Source"]; source != "" { // "glibc", or "glibc (2.36-9)" when the versions differ
			name, version, differs := strings.Cut(source, " (")
			p.Source = name
			if differs {
				p.Origin = strings.TrimSuffix(version, ")")
			}
		}
		out = append(out, p)
	})
	return out
}

// apk reads /lib/apk/db/installed: a field a line, with one letter as its name.
func apk(text []byte) (out []Package) {
	var p Package
	end := func() {
		if p.Name != "" && p.Version != "" {
			p.Manager, p.Origin, p.Source = "OS", p.Version, cmp.Or(p.Source, p.Name)
			out = append(out, p)
		}
		p = Package{}
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		key, value, ok := strings.Cut(line, ":")
		switch {
		case line == "":
			end()
		case !ok:
		case key == "P":
			p.Name = value
		case key == "V":
			p.Version = value
		case key == "A":
			p.Arch = value
		case key == "o":
			p.Source = value
		}
	}
	end()
	return out
}

// modules are those that a program in Go is made of, the standard library too, which advisories call stdlib.
func modules(info *buildinfo.BuildInfo) []Package {
	add := func(out []Package, module, version string) []Package {
		version = strings.TrimPrefix(version, "v")
		if module == "" || version == "" || version == "(devel)" {
			return out
		}
		return append(out, Package{Ecosystem: "Go", Name: module, Version: version, Source: module, Origin: version, Manager: "GOBINARY"})
	}
	out := add(nil, "stdlib", goVersion(info.GoVersion))
	out = add(out, info.Main.Path, info.Main.Version)
	for _, m := range info.Deps {
		out = add(out, replaced(m).Path, replaced(m).Version)
	}
	return out
}

func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

// goVersion writes a release of Go as a semantic version: go1.22rc1 is 1.22.0-rc.1.
func goVersion(s string) string {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "go"), " ") // "go1.22.1 X:boringcrypto"
	s, _, _ = strings.Cut(s, "-")                           // "go1.22.1-custom"
	for _, pre := range []string{"rc", "beta"} {
		if release, n, ok := strings.Cut(s, pre); ok {
			for strings.Count(release, ".") < 2 {
				release += ".0"
			}
			return release + "-" + pre + "." + n
		}
	}
	if s == "" || s[0] < '0' || s[0] > '9' { // "devel go1.23-abcdef"
		return ""
	}
	return s
}
