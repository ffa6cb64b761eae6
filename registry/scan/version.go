package scan

import (
	"cmp"
	"strings"

	"golang.org/x/mod/semver"
)

// orderOf is how versions of an ecosystem are compared.
func orderOf(ecosystem string) func(a, b string) int {
	family, _, _ := strings.Cut(ecosystem, ":")
	switch family {
	case "Debian", "Ubuntu":
		return compareDpkg
	case "Alpine", "Wolfi", "Chainguard":
		return compareApk
	case "Go":
		return func(a, b string) int {
			return semver.Compare("v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v"))
		}
	}
	return nil
}

// compareDpkg follows "Version" of the Debian Policy Manual: [epoch:]upstream[-revision].
func compareDpkg(a, b string) int {
	ea, ua, ra := splitDpkg(a)
	eb, ub, rb := splitDpkg(b)
	return cmp.Or(compareDigits(ea, eb), verrevcmp(ua, ub), verrevcmp(ra, rb))
}

func splitDpkg(v string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// verrevcmp compares, in turns, what is no digit and what is. Letters come before anything else, a tilde before everything, even the end.
func verrevcmp(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // of one weight: neither has ended
		}
		var na, nb string
		na, a = leading(a)
		nb, b = leading(b)
		if c := compareDigits(na, nb); c != 0 {
			return c
		}
	}
	return 0
}

func weight(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// leading cuts off the digits at the start.
func leading(s string) (digits, rest string) {
	i := 0
	for i < len(s) && digit(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// apkSuffixes are in the order of what they mean; a version without one is between rc and cvs.
var apkSuffixes = map[string]int{"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4, "p": 5}

// compareApk follows apk-package(5): number{.number}[letter]{_suffix[number]}[~hash][-rN].
func compareApk(a, b string) int {
	va, vb := parseApk(a), parseApk(b)
	for i := range max(len(va.numbers), len(vb.numbers)) {
		switch {
		case i >= len(va.numbers):
			return -1
		case i >= len(vb.numbers):
			return 1
		}
		if c := compareApkNumber(va.numbers[i], vb.numbers[i], i == 0); c != 0 {
			return c
		}
	}
	if c := cmp.Compare(va.letter, vb.letter); c != 0 {
		return c
	}
	for i := range max(len(va.suffixes), len(vb.suffixes)) {
		var sa, sb apkSuffix
		if i < len(va.suffixes) {
			sa = va.suffixes[i]
		}
		if i < len(vb.suffixes) {
			sb = vb.suffixes[i]
		}
		if c := cmp.Or(cmp.Compare(sa.rank, sb.rank), compareDigits(sa.number, sb.number)); c != 0 {
			return c
		}
	}
	return compareDigits(va.revision, vb.revision)
}

// compareApkNumber: after the first, a number with a zero in front is the part behind a decimal point.
func compareApkNumber(a, b string, first bool) int {
	if !first && (strings.HasPrefix(a, "0") || strings.HasPrefix(b, "0")) {
		return strings.Compare(strings.TrimRight(a, "0"), strings.TrimRight(b, "0"))
	}
	return compareDigits(a, b)
}

type apkSuffix struct {
	rank   int
	number string
}

type apkVersion struct {
	numbers  []string
	letter   string
	suffixes []apkSuffix
	revision string
}

func parseApk(s string) (v apkVersion) {
	if i := strings.LastIndex(s, "-r"); i >= 0 {
		s, v.revision = s[:i], s[i+2:]
	}
	s, _, _ = strings.Cut(s, "~")
	parts := strings.Split(s, "_")
	for _, n := range strings.Split(parts[0], ".") {
		n, v.letter = leading(n) // only the last has one
		v.numbers = append(v.numbers, n)
	}
	for _, p := range parts[1:] {
		name := strings.TrimRight(p, "0123456789")
		v.suffixes = append(v.suffixes, apkSuffix{apkSuffixes[name], p[len(name):]})
	}
	return v
}
