package scan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// osvRecord is what is read of an advisory in the format of OSV (schema 1.7).
type osvRecord struct {
	ID         string        `json:"id"`
	Modified   time.Time     `json:"modified"`
	Published  time.Time     `json:"published"`
	Withdrawn  *time.Time    `json:"withdrawn"`
	Aliases    []string      `json:"aliases"`
	Upstream   []string      `json:"upstream"`
	Summary    string        `json:"summary"`
	Details    string        `json:"details"`
	Severity   []osvSeverity `json:"severity"`
	Affected   []osvAffected `json:"affected"`
	References []struct {
		URL string `json:"url"`
	} `json:"references"`
	Specific osvSpecific `json:"database_specific"`
}

type osvAffected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Severity []osvSeverity `json:"severity"`
	Ranges   []struct {
		Type   string     `json:"type"`
		Events []osvEvent `json:"events"`
	} `json:"ranges"`
	Versions []string    `json:"versions"`
	Specific osvSpecific `json:"ecosystem_specific"`
}

type osvSeverity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

// osvSpecific has the words of vendors: GitHub's severity, Debian's urgency. Others put other things there.
type osvSpecific struct {
	Severity any `json:"severity"`
	Urgency  any `json:"urgency"`
}

type osvEvent struct {
	Introduced   string `json:"introduced,omitempty"`
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"last_affected,omitempty"`
}

// advisory is what an index keeps: a vulnerability of one package.
type advisory struct {
	Ecosystem   string       `json:"e"`
	Package     string       `json:"p"`
	Names       []string     `json:"n"` // CVEs, or the advisory's id
	ID          string       `json:"i"`
	Severity    Severity     `json:"s"`
	Score       float64      `json:"c,omitempty"`
	Vector      string       `json:"v,omitempty"`
	Description string       `json:"d,omitempty"`
	References  []string     `json:"r,omitempty"`
	Published   time.Time    `json:"b,omitzero"`
	Modified    time.Time    `json:"m,omitzero"`
	Ranges      [][]osvEvent `json:"g,omitempty"`
	Versions    []string     `json:"x,omitempty"`
}

// advisories takes a record apart. Ecosystems that Take finds nothing of are left out, and so is what was withdrawn.
func advisories(text []byte) (out []advisory, modified time.Time, err error) {
	var r osvRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, modified, fmt.Errorf("not a record of OSV: %w", err)
	}
	if r.ID == "" {
		return nil, modified, fmt.Errorf("not a record of OSV: it has no id")
	}
	if r.Withdrawn != nil {
		return nil, r.Modified, nil
	}
	var names []string
	for _, n := range append([]string{r.ID}, append(r.Aliases, r.Upstream...)...) {
		if strings.HasPrefix(n, "CVE-") && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if names == nil {
		names = []string{r.ID}
	}
	for _, a := range r.Affected {
		if orderOf(a.Package.Ecosystem) == nil || a.Package.Name == "" {
			continue
		}
		v := advisory{Ecosystem: a.Package.Ecosystem, Package: a.Package.Name, Names: names, ID: r.ID, Published: r.Published, Modified: r.Modified}
		v.Description = shorten(cmp.Or(r.Details, r.Summary), maxDescription)
		for _, ref := range r.References[:min(len(r.References), maxReferences)] {
			v.References = append(v.References, ref.URL)
		}
		v.Severity, v.Score, v.Vector = rate(&r, &a)
		for _, g := range a.Ranges {
			if g.Type == "ECOSYSTEM" || g.Type == "SEMVER" {
				v.Ranges = append(v.Ranges, g.Events)
			}
		}
		if v.Ranges == nil { // otherwise the list only spells out what the ranges say
			v.Versions = a.Versions
		}
		out = append(out, v)
	}
	return out, r.Modified, nil
}

// rate prefers a score to a word, what is said of the package to what is said of all, and CVSS 3, which all others have, to 4.
func rate(r *osvRecord, a *osvAffected) (Severity, float64, string) {
	word := Undefined
	for _, list := range [][]osvSeverity{a.Severity, r.Severity} {
		for _, scoreOf := range []func(string) (float64, bool){cvss3Score, cvss4Score} {
			for _, s := range list {
				if score, ok := scoreOf(s.Score); ok {
					return severityOf(score), score, s.Score
				}
			}
		}
		for _, s := range list {
			if w := severityNamed(s.Score); w != Undefined && word == Undefined { // {"type": "Ubuntu", "score": "medium"}
				word = w
			}
		}
	}
	for _, s := range []any{a.Specific.Severity, a.Specific.Urgency, r.Specific.Severity} {
		if text, ok := s.(string); ok && word == Undefined {
			word = severityNamed(text)
		}
	}
	return word, 0, ""
}

// affects says whether a version has the vulnerability, and in which it is fixed; "" when no later one is known to be.
func (a *advisory) affects(version string) (fixedIn string, yes bool) {
	order := orderOf(a.Ecosystem)
	if slices.Contains(a.Versions, version) {
		return "", true
	}
	for _, events := range a.Ranges {
		if fixed, in := inRange(events, version, order); in {
			return fixed, true
		}
	}
	return "", false
}

// inRange goes through a range's events by version ("Evaluation" of the schema): the last at or below the version decides.
func inRange(events []osvEvent, version string, order func(a, b string) int) (fixedIn string, in bool) {
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(x, y osvEvent) int {
		a, b := x.at(), y.at()
		switch { // "0" is before every version, whatever the order makes of it
		case a == b:
			return 0
		case a == "0":
			return -1
		case b == "0":
			return 1
		}
		return order(a, b)
	})
	for _, e := range sorted {
		switch {
		case e.Introduced == "0", e.Introduced != "" && order(version, e.Introduced) >= 0:
			in = true
		case e.Fixed != "" && order(version, e.Fixed) >= 0:
			in = false
		case e.LastAffected != "" && order(version, e.LastAffected) > 0:
			in = false
		case e.Fixed != "" && in && fixedIn == "":
			fixedIn = e.Fixed
		}
	}
	return fixedIn, in
}

func (e osvEvent) at() string { return cmp.Or(e.Introduced, e.Fixed, e.LastAffected) }

// shorten cuts a text at a character.
func shorten(s string, most int) string {
	s = strings.TrimSpace(s)
	if len(s) <= most {
		return s
	}
	return strings.TrimRight(strings.ToValidUTF8(s[:most-len("…")], ""), " ") + "…"
}

// pageOf is where people read about a vulnerability.
func pageOf(a *advisory, name string) string {
	family, _, _ := strings.Cut(a.Ecosystem, ":")
	switch {
	case family == "Go" && strings.HasPrefix(a.ID, "GO-"):
		return "https://pkg.go.dev/vuln/" + a.ID
	case !strings.HasPrefix(name, "CVE-"):
		return "https://osv.dev/vulnerability/" + a.ID
	case family == "Debian":
		return "https://security-tracker.debian.org/tracker/" + name
	case family == "Ubuntu":
		return "https://ubuntu.com/security/" + name
	case family == "Alpine":
		return "https://security.alpinelinux.org/vuln/" + name
	}
	return "https://nvd.nist.gov/vuln/detail/" + name
}
