package scan

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// sarif is the part of SARIF 2.1.0 that scanners of images fill in.
type sarif struct {
	Runs []struct {
		Tool struct {
			Driver struct {
				Name  string      `json:"name"`
				Rules []sarifRule `json:"rules"`
			} `json:"driver"`
		} `json:"tool"`
		Results []struct {
			RuleID  string    `json:"ruleId"`
			Level   string    `json:"level"`
			Message sarifText `json:"message"`
		} `json:"results"`
	} `json:"runs"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifRule struct {
	ID      string    `json:"id"`
	Short   sarifText `json:"shortDescription"`
	Full    sarifText `json:"fullDescription"`
	HelpURI string    `json:"helpUri"`
	Values  struct {
		Score any `json:"security-severity"` // a number, or one as a text
	} `json:"properties"`
}

var (
	// vulnerabilityID begins the ids of rules; some programs put the package behind it.
	vulnerabilityID = regexp.MustCompile(`^(CVE-[0-9]{4}-[0-9]+|GHSA(-[0-9a-z]{4}){3}|GO-[0-9]{4}-[0-9]+)`)
	// What messages say of the package, in lines of their own.
	saidPackage   = regexp.MustCompile(`(?m)^Package: (\S+)`)
	saidInstalled = regexp.MustCompile(`(?m)^Installed Version: (\S+)`)
	saidFixed     = regexp.MustCompile(`(?m)^Fixed Version: (\S+)`)
	saidInText    = regexp.MustCompile(`package: (\S+), version (\S+) `)
)

func readSARIF(text []byte, i *Inventory) (*Report, error) {
	var s sarif
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("not SARIF: %w", err)
	}
	r := &Report{}
	byID := map[string]*Finding{}
	for _, run := range s.Runs {
		if r.Source == "" {
			r.Source = run.Tool.Driver.Name
		}
		rules := map[string]*sarifRule{}
		for n := range run.Tool.Driver.Rules {
			rules[run.Tool.Driver.Rules[n].ID] = &run.Tool.Driver.Rules[n]
		}
		for _, result := range run.Results {
			if result.RuleID == "" {
				return nil, fmt.Errorf("not SARIF: a result has no ruleId")
			}
			id := result.RuleID
			if known := vulnerabilityID.FindString(id); known != "" {
				id = known
			}
			a := advisory{ID: id, Severity: map[string]Severity{"error": High, "warning": Medium, "note": Low}[result.Level]}
			if a.Severity == "" {
				a.Severity = Undefined
			}
			rule := rules[result.RuleID]
			if rule != nil {
				a.Description = shorten(rule.Full.Text, maxDescription)
				if a.Description == "" {
					a.Description = shorten(rule.Short.Text, maxDescription)
				}
				if score, err := strconv.ParseFloat(fmt.Sprint(rule.Values.Score), 64); err == nil && score >= 0 && score <= 10 {
					a.Score, a.Severity = score, severityOf(score)
				}
			}
			note(byID, &a, id, i.said(result.Message.Text))
			if f := byID[id]; f != nil && rule != nil && strings.HasPrefix(rule.HelpURI, "http") {
				f.URL = rule.HelpURI
			}
		}
	}
	r.Findings = sorted(byID)
	return r, nil
}

// said is the package that a message is about, as far as it tells.
func (i *Inventory) said(message string) (v Vulnerable) {
	first := func(re *regexp.Regexp) string {
		if m := re.FindStringSubmatch(message); m != nil {
			return m[1]
		}
		return ""
	}
	v.Name, v.Version, v.FixedIn = first(saidPackage), first(saidInstalled), first(saidFixed)
	if m := saidInText.FindStringSubmatch(message); m != nil && v.Name == "" {
		v.Name, v.Version = m[1], m[2]
	}
	for _, p := range i.Packages {
		if p.Name == v.Name && (p.Version == v.Version || v.Version == "") {
			v.Package = p
			break
		}
	}
	return v
}
