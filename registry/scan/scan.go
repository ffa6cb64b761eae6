// Package scan looks for known vulnerabilities in images. It takes stock of what an image has installed (Take), and a
// Scanner says what is known of that: Database holds it against advisories in the format of OSV, Command and Webhook give it to
// another program as a bill of materials.
//
// It is pure but for reading what it is given: no state, no clock, no registry. Layers are the work of strangers: they are
// read as streams and never unpacked, within the limits of Limits.
package scan

import (
	"context"
	"errors"
	"time"
)

// Package is something installed in an image that advisories speak of.
type Package struct {
	Ecosystem string `json:"ecosystem"`      // as OSV names it: "Debian:12", "Alpine:v3.20", "Go"
	Name      string `json:"name"`           // as installed
	Version   string `json:"version"`        // as installed
	Source    string `json:"source"`         // by what name advisories know it: the source package, the origin, the module
	Origin    string `json:"origin"`         // the version of that
	Arch      string `json:"arch,omitempty"` //
	Manager   string `json:"manager"`        // OS (dpkg, apk) or GOBINARY, as Inspector has them
	Path      string `json:"path,omitempty"` // of the file that contains it, without a slash at the start
	Layer     string `json:"layer,omitempty"`
}

// Inventory is what an image has installed.
type Inventory struct {
	Distribution string    `json:"distribution,omitempty"` // ID of os-release: "debian"
	Release      string    `json:"release,omitempty"`      // VERSION_ID: "12"
	Packages     []Package `json:"packages"`
}

// Severity is ECR's.
type Severity string

// The severities, from the least.
const (
	Undefined     Severity = "UNDEFINED"
	Informational Severity = "INFORMATIONAL"
	Low           Severity = "LOW"
	Medium        Severity = "MEDIUM"
	High          Severity = "HIGH"
	Critical      Severity = "CRITICAL"
)

var severities = []Severity{Undefined, Informational, Low, Medium, High, Critical}

// Rank orders severities; -1 for what is none.
func (s Severity) Rank() int {
	for i, x := range severities {
		if x == s {
			return i
		}
	}
	return -1
}

// Vulnerable is a package that a finding is about.
type Vulnerable struct {
	Package
	FixedIn string `json:"fixedIn,omitempty"` // empty: there is no fix, or none is known
}

// Finding is a vulnerability that an image has, with all its packages that have it.
type Finding struct {
	ID          string       `json:"id"` // CVE-…, or the advisory's own
	Severity    Severity     `json:"severity"`
	Score       float64      `json:"score,omitempty"`  // CVSS base score; 0: none is known
	Vector      string       `json:"vector,omitempty"` // that the score is from
	Description string       `json:"description,omitempty"`
	URL         string       `json:"url,omitempty"`
	References  []string     `json:"references,omitempty"`
	Related     []string     `json:"related,omitempty"` // other names: the advisory's, when ID is a CVE
	Published   time.Time    `json:"published,omitzero"`
	Modified    time.Time    `json:"modified,omitzero"`
	Packages    []Vulnerable `json:"packages"`
}

// Report is what a scanner says of an inventory: one finding an ID, the worst first.
type Report struct {
	Source   string    `json:"source"`           // who says so: "OSV", or the program's name
	Updated  time.Time `json:"updated,omitzero"` // how new its knowledge is, where it says so
	Findings []Finding `json:"findings"`
}

// Scanner knows vulnerabilities. It is safe for concurrent use.
type Scanner interface {
	// Scan reports what is known of the inventory's packages.
	Scan(ctx context.Context, image Image, i *Inventory) (*Report, error)
	// Version changes when Scan may have something new to say of the same inventory; empty: it cannot tell.
	Version() (string, error)
}

// Image names an image to scanners.
type Image struct {
	Name   string // repository URI with digest
	Digest string
}

// ErrUnsupported says that nothing was found in an image whose vulnerabilities anybody could know.
var ErrUnsupported = errors.New("the image has no operating system or package manager that is supported: dpkg (Debian, Ubuntu), apk (Alpine, Wolfi, Chainguard) and programs in Go are")

// maxFindings bounds a report, maxDescription a finding: results are kept.
const (
	maxFindings    = 20000
	maxDescription = 1024
	maxReferences  = 10
)
