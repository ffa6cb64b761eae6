package registry

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lifecycleCase is a policy, the images of a repository and what becomes of them. Times are days ago.
type lifecycleCase struct {
	Name   string
	Source string          // the page that gives the outcome; neargate: our own
	Rules  json.RawMessage // of the policy
	Images map[string]struct {
		Tags, Parents                       []string
		Pushed, Pulled, Archived, Activated float64
		InArchive                           bool
		Subject, Needed                     string
	}
	Want map[string]string
}

func TestEvaluateLifecycle(t *testing.T) {
	text, err := os.ReadFile("testdata/lifecycle.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []lifecycleCase
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(days float64) time.Time {
		if days == 0 {
			return time.Time{}
		}
		return now.Add(-time.Duration(days * float64(24*time.Hour)))
	}
	for _, tc := range cases {
		t.Run(tc.Name, func(t *testing.T) {
			p, err := parseLifecyclePolicy(`{"rules":` + string(tc.Rules) + `}`)
			if err != nil {
				t.Fatal(err)
			}
			byName := map[string]*candidate{}
			var images []*candidate
			for name, i := range tc.Images {
				c := &candidate{digest: name, tags: i.Tags, parents: i.Parents, pushed: now.Add(-time.Duration(i.Pushed * float64(24*time.Hour))),
					pulled: ago(i.Pulled), archived: ago(i.Archived), activated: ago(i.Activated), inArchive: i.InArchive, needed: i.Needed}
				byName[name] = c
				images = append(images, c)
			}
			for name, i := range tc.Images {
				if i.Subject != "" {
					byName[name].subject = byName[i.Subject]
					byName[name].dangling = byName[i.Subject] == nil
				}
			}
			got := map[string]string{}
			for _, v := range p.evaluate(images, now) {
				s := v.action
				if v.rule != nil {
					s += fmt.Sprint(" by ", v.rule.priority)
				}
				if v.kept != "" {
					s += ", kept: " + v.kept
				}
				got[v.digest] = s
			}
			if d := cmp.Diff(tc.Want, got); d != "" {
				t.Errorf("%s\n%s", tc.Source, d)
			}
		})
	}
}

// TestLifecycleInvalid: every mistake is refused, and the message names it.
func TestLifecycleInvalid(t *testing.T) {
	rule := func(priority int, selection, action string) string {
		return fmt.Sprintf(`{"rulePriority":%d,"selection":{%s},"action":{%s}}`, priority, selection, action)
	}
	expire, archive := `"type":"expire"`, `"type":"transition","targetStorageClass":"archive"`
	count := `"countType":"imageCountMoreThan","countNumber":1`
	one := func(selection, action string) string { return `{"rules":[` + rule(1, selection, action) + `]}` }
	many := func(rules ...string) string { return `{"rules":[` + strings.Join(rules, ",") + `]}` }
	repeated := func(n int) string {
		var rules []string
		for i := range n {
			rules = append(rules, rule(i+1, fmt.Sprintf(`"tagStatus":"tagged","tagPatternList":["v%d*"],%s`, i, count), expire))
		}
		return many(rules...)
	}
	for _, tc := range []struct{ text, want string }{
		{`no JSON`, "Could not map policyString into LifecyclePolicy."},
		{`[]`, "Could not map policyString into LifecyclePolicy."},
		{`{"rules":[]} {}`, "Could not map policyString into LifecyclePolicy."},
		{`{}`, `object has missing required properties (["rules"])`},
		{`{"rules":[],"version":1}`, `object instance has properties which are not allowed by the schema: (["version"])`},
		{`{"rules":{}}`, `instance type (object) does not match any allowed primitive type (allowed: ["array"])`},
		{`{"rules":[]}`, "array is too short: must have at least 1 elements but instance has 0 elements"},
		{repeated(51), "array is too long: must have at most 50 elements but instance has 51 elements"},
		{`{"rules":["x"]}`, `instance type (string) does not match any allowed primitive type (allowed: ["object"])`},
		{`{"rules":[{}]}`, `object has missing required properties (["action","rulePriority","selection"])`},
		{`{"rules":[{"rulePriority":1,"selection":[],"action":{}}]}`, `instance type (array) does not match any allowed primitive type (allowed: ["object"])`},
		{many(rule(0, `"tagStatus":"any",`+count, expire)), "numeric instance is lower than the required minimum (minimum: 1, found: 0)"},
		{`{"rules":[{"rulePriority":1.5,"selection":{},"action":{}}]}`, `instance type (number) does not match any allowed primitive type (allowed: ["integer"])`},
		{one(`"tagStatus":"any"`, expire), `object has missing required properties (["countNumber","countType"])`},
		{one(`"tagStatus":"some",`+count, expire), `instance value ("some") not found in enum (possible values: ["any","tagged","untagged"])`},
		{one(`"tagStatus":"any","countType":"older","countNumber":1`, expire), `instance value ("older") not found in enum (possible values: ["imageCountMoreThan","sinceImagePulled","sinceImagePushed","sinceImageTransitioned"])`},
		{one(`"tagStatus":"tagged",`+count, expire), "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."},
		{one(`"tagStatus":"untagged","tagPrefixList":["v"],`+count, expire), "Cannot specify tagPrefixList or tagPatternList when tagStatus=UNTAGGED."},
		{one(`"tagStatus":"tagged","tagPrefixList":["v"],"tagPatternList":["v*"],`+count, expire), "Cannot specify both tagPrefixList and tagPatternList."},
		{one(`"tagStatus":"tagged","tagPatternList":[],`+count, expire), "array is too short: must have at least 1 elements but instance has 0 elements"},
		{one(`"tagStatus":"tagged","tagPatternList":[null],`+count, expire), `instance type (null) does not match any allowed primitive type (allowed: ["string"])`},
		{one(`"tagStatus":"tagged","tagPatternList":["test*1*2*3*4*5*6"],`+count, expire), `tagPatternList has at most 4 wildcards in a pattern; "test*1*2*3*4*5*6" has 6`},
		{one(`"tagStatus":"tagged","tagPrefixList":["v*"],`+count, expire), `tagPrefixList has no wildcards; "v*" has one`},
		{one(`"tagStatus":"any","countUnit":"days",`+count, expire), "Cannot specify countUnit when countType=imageCountMoreThan."},
		{one(`"tagStatus":"any","countType":"sinceImagePushed","countNumber":1`, expire), "Must specify countUnit when countType=sinceImagePushed."},
		{one(`"tagStatus":"any","countType":"sinceImagePushed","countUnit":"hours","countNumber":1`, expire), `instance value ("hours") not found in enum (possible values: ["days"])`},
		{one(`"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":1`, expire), "Action type must be transition when countType=sinceImagePulled."},
		{one(`"tagStatus":"any","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, expire), "Must specify storageClass=archive when countType=sinceImageTransitioned."},
		{one(`"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":89`, expire), "countNumber must be at least 90 when countType=sinceImageTransitioned."},
		{one(`"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, archive), "Action type must be expire when countType=sinceImageTransitioned."},
		{one(`"tagStatus":"any","storageClass":"archive",`+count, expire), "Cannot specify storageClass=archive when countType=imageCountMoreThan."},
		{one(`"tagStatus":"any",`+count, `"type":"delete"`), `instance value ("delete") not found in enum (possible values: ["expire","transition"])`},
		{one(`"tagStatus":"any",`+count, `"type":"transition"`), "Must specify targetStorageClass when type=transition."},
		{one(`"tagStatus":"any",`+count, `"type":"expire","targetStorageClass":"archive"`), "Cannot specify targetStorageClass when type=expire."},
		{one(`"tagStatus":"any",`+count, `"type":"expire","targetStorageClass":null`), `instance type (null) does not match any allowed primitive type (allowed: ["string"])`},
		{many(rule(1, `"tagStatus":"untagged",`+count, expire), rule(1, `"tagStatus":"any",`+count, expire)), "Rules must have different rulePriority; 1 is used more than once"},
		{many(rule(1, `"tagStatus":"any",`+count, expire), rule(2, `"tagStatus":"untagged",`+count, expire)), "Rule for tagStatus=ANY must have the lowest priority per storage class"},
		{many(rule(1, `"tagStatus":"any",`+count, expire), rule(2, `"tagStatus":"any",`+count, archive)), "Rule for tagStatus=ANY must have the lowest priority per storage class"},
		{many(rule(1, `"tagStatus":"untagged",`+count, expire), rule(2, `"tagStatus":"untagged",`+count, archive)), "Only one rule can select Untagged images per storage class"},
		{many(rule(1, `"tagStatus":"tagged","tagPrefixList":["a","b"],`+count, expire), rule(2, `"tagStatus":"tagged","tagPrefixList":["b","a"],`+count, archive)), `Only one rule per storage class can select the tags ["a*" "b*"]`},
	} {
		_, err := parseLifecyclePolicy(tc.text)
		want := "InvalidParameterException: Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: " + tc.want + "'"
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", tc.text, err, want)
		}
	}
	for _, good := range []string{
		repeated(50),
		one(`"tagStatus":"tagged","tagPatternList":["*test*1*2*3","test*1*2*3*"],`+count, expire),
		many(rule(7, `"tagStatus":"any",`+count, archive), rule(8, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, expire)),
	} {
		if _, err := parseLifecyclePolicy(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func FuzzParseLifecyclePolicy(f *testing.F) {
	f.Add(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	f.Add(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["*a*"],"countType":"sinceImagePulled","countUnit":"days","countNumber":1},"action":{"type":"transition","targetStorageClass":"archive"}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseLifecyclePolicy(text)
		if err == nil {
			p.evaluate([]*candidate{{digest: "a", tags: []string{"a"}}, {digest: "b"}}, time.Now())
		}
	})
}

// TestMatchesWildcard compares with a plain definition: what is tried is one character at a time.
func TestMatchesWildcard(t *testing.T) {
	var plain func(filter, tag string) bool
	plain = func(filter, tag string) bool {
		switch {
		case filter == "":
			return tag == ""
		case filter[0] == '*':
			return plain(filter[1:], tag) || tag != "" && plain(filter, tag[1:])
		}
		return tag != "" && filter[0] == tag[0] && plain(filter[1:], tag[1:])
	}
	random := func(alphabet string) string {
		b := make([]byte, rand.IntN(7))
		for i := range b {
			b[i] = alphabet[rand.IntN(len(alphabet))]
		}
		return string(b)
	}
	for range 20000 {
		filter, tag := random("ab*"), random("ab")
		if got, want := matchesWildcard(filter, tag), plain(filter, tag); got != want {
			t.Fatalf("matchesWildcard(%q, %q) is %v", filter, tag, got)
		}
	}
	if matchesWildcard(strings.Repeat("*a", 64), strings.Repeat("a", 127)+"b") { // in no time
		t.Error("matched")
	}
}

// BenchmarkEvaluateLifecycle evaluates fifty rules over as many images as ECR lets a repository have.
func BenchmarkEvaluateLifecycle(b *testing.B) {
	var rules []string
	for i := range 49 {
		rules = append(rules, fmt.Sprintf(`{"rulePriority":%d,"selection":{"tagStatus":"tagged","tagPatternList":["v%d-*"],"countType":"imageCountMoreThan","countNumber":10},"action":{"type":"expire"}}`, i+1, i))
	}
	rules = append(rules, `{"rulePriority":50,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}`)
	p, err := parseLifecyclePolicy(`{"rules":[` + strings.Join(rules, ",") + `]}`)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	images := make([]*candidate, 100_000)
	for i := range images {
		images[i] = &candidate{digest: fmt.Sprintf("sha256:%064x", i), tags: []string{fmt.Sprintf("v%d-%d", i%60, i)}, pushed: now.Add(-time.Duration(i) * time.Minute)}
	}
	for b.Loop() {
		p.evaluate(images, now)
	}
}
