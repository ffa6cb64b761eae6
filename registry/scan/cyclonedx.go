package scan

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// bom is a bill of materials in CycloneDX 1.5, as far as it is written and read here.
type bom struct {
	Format          string          `json:"bomFormat"`
	SpecVersion     string          `json:"specVersion"`
	Version         int             `json:"version"`
	Metadata        *bomMetadata    `json:"metadata,omitempty"`
	Components      []component     `json:"components"`
	Vulnerabilities []vulnerability `json:"vulnerabilities,omitempty"`
}

type bomMetadata struct {
	Component *component      `json:"component,omitempty"`
	Tools     json.RawMessage `json:"tools,omitempty"` // a list of them until 1.4, an object since
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref,omitempty"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
}

type vulnerability struct {
	ID      string `json:"id"`
	Ratings []struct {
		Score    float64 `json:"score"`
		Severity string  `json:"severity"`
		Method   string  `json:"method"`
		Vector   string  `json:"vector"`
	} `json:"ratings"`
	Source struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	} `json:"source"`
	Description    string `json:"description"`
	Recommendation string `json:"recommendation"`
	Advisories     []struct {
		URL string `json:"url"`
	} `json:"advisories"`
	Published time.Time `json:"published"`
	Updated   time.Time `json:"updated"`
	Affects   []struct {
		Ref string `json:"ref"`
	} `json:"affects"`
}

// purl is a package's URL, by the specification of package-url, with the qualifiers that scanners need to know a distribution's packages.
func (i *Inventory) purl(p *Package) string {
	var kind, namespace string
	switch {
	case p.Ecosystem == "Go":
		version := p.Version
		if p.Name != "stdlib" {
			version = "v" + version
		}
		return "pkg:golang/" + p.Name + "@" + url.PathEscape(version)
	case strings.HasPrefix(p.Ecosystem, "Debian"), strings.HasPrefix(p.Ecosystem, "Ubuntu"):
		kind, namespace = "deb", i.Distribution
	default:
		kind, namespace = "apk", i.Distribution
	}
	q := url.Values{"distro": {i.Distribution + "-" + i.Release}}
	if p.Arch != "" {
		q.Set("arch", p.Arch)
	}
	if p.Source != p.Name || p.Origin != p.Version {
		upstream := p.Source
		if p.Origin != p.Version {
			upstream += "@" + p.Origin
		}
		q.Set("upstream", upstream)
	}
	return "pkg:" + kind + "/" + namespace + "/" + url.PathEscape(p.Name) + "@" + url.PathEscape(p.Version) + "?" + q.Encode()
}

// Materials is the inventory as a bill of materials in CycloneDX. A package that is there twice is listed once.
func (i *Inventory) Materials(image Image) ([]byte, error) {
	b := bom{Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata:   &bomMetadata{Component: &component{Type: "container", Ref: image.Digest, Name: image.Name, Version: image.Digest}},
		Components: []component{},
	}
	if i.Distribution != "" {
		b.Components = append(b.Components, component{Type: "operating-system", Ref: "os", Name: i.Distribution, Version: i.Release})
	}
	seen := map[string]bool{}
	for n := range i.Packages {
		p := &i.Packages[n]
		if purl := i.purl(p); !seen[purl] {
			seen[purl] = true
			b.Components = append(b.Components, component{Type: "library", Ref: purl, Name: p.Name, Version: p.Version, PURL: purl})
		}
	}
	return json.Marshal(b)
}

// readReport reads what another program found, in CycloneDX or SARIF.
func readReport(text []byte, i *Inventory) (*Report, error) {
	var kind struct {
		Format string          `json:"bomFormat"`
		Runs   json.RawMessage `json:"runs"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, fmt.Errorf("neither CycloneDX nor SARIF: %w", err)
	}
	switch {
	case kind.Format == "CycloneDX":
		return readCycloneDX(text, i)
	case kind.Runs != nil:
		return readSARIF(text, i)
	}
	return nil, errors.New("neither CycloneDX (bomFormat) nor SARIF (runs)")
}

func readCycloneDX(text []byte, i *Inventory) (*Report, error) {
	var b bom
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("not CycloneDX: %w", err)
	}
	packages := map[string][]Package{} // by URL, which is our reference to them
	for _, p := range i.Packages {
		packages[i.purl(&p)] = append(packages[i.purl(&p)], p)
	}
	theirs := map[string]component{} // by their references, should those not be ours
	for _, c := range b.Components {
		theirs[c.Ref] = c
	}
	byID := map[string]*Finding{}
	for _, v := range b.Vulnerabilities {
		if v.ID == "" {
			return nil, errors.New("not CycloneDX: a vulnerability has no id")
		}
		a := advisory{Names: []string{v.ID}, ID: v.ID, Severity: Undefined, Description: shorten(v.Description, maxDescription), Published: v.Published, Modified: v.Updated}
		byThree := false // the score is one of CVSS 3
		for _, r := range v.Ratings {
			if s := severityNamed(r.Severity); s.Rank() > a.Severity.Rank() {
				a.Severity = s
			}
			three := strings.HasPrefix(r.Method, "CVSSv3")
			if three && (!byThree || r.Score > a.Score) || r.Method == "CVSSv4" && !byThree && r.Score > a.Score {
				a.Score, a.Vector, byThree = r.Score, r.Vector, three
			}
		}
		if a.Severity == Undefined && a.Score > 0 {
			a.Severity = severityOf(a.Score)
		}
		for _, ad := range v.Advisories[:min(len(v.Advisories), maxReferences)] {
			a.References = append(a.References, ad.URL)
		}
		for _, affected := range v.Affects {
			for _, p := range affectedPackages(affected.Ref, packages, theirs) {
				note(byID, &a, v.ID, Vulnerable{Package: p})
			}
		}
		if f := byID[v.ID]; f != nil {
			f.URL = cmp.Or(v.Source.URL, pageOf(&a, v.ID))
		}
	}
	return &Report{Source: toolOf(b.Metadata), Findings: sorted(byID)}, nil
}

// affectedPackages are those that a reference means: ours, or at least one of a name and version that the answer gives.
func affectedPackages(ref string, ours map[string][]Package, theirs map[string]component) []Package {
	candidates := []string{ref}
	if _, of, ok := strings.Cut(ref, "#"); ok { // "urn:cdx:serial/version#ref" is a component of another document
		candidates = append(candidates, of)
		if plain, err := url.PathUnescape(of); err == nil {
			candidates = append(candidates, plain)
		}
	}
	for _, r := range candidates {
		if list := ours[r]; list != nil {
			return list
		}
		if c, ok := theirs[r]; ok {
			if list := ours[c.PURL]; list != nil {
				return list
			}
			for _, list := range ours {
				if n := slices.IndexFunc(list, func(p Package) bool { return p.Name == c.Name && p.Version == c.Version }); n >= 0 {
					return list
				}
			}
			return []Package{{Name: c.Name, Version: c.Version}}
		}
	}
	return []Package{{Name: ref}}
}

// toolOf is the first program that a document names.
func toolOf(m *bomMetadata) string {
	if m == nil {
		return ""
	}
	var list []struct{ Name string }
	if json.Unmarshal(m.Tools, &list) == nil && len(list) > 0 {
		return list[0].Name
	}
	var since struct{ Components []struct{ Name string } }
	if json.Unmarshal(m.Tools, &since) == nil && len(since.Components) > 0 {
		return since.Components[0].Name
	}
	return ""
}
