package model

import (
	"regexp"
	"strings"
	"testing"
)

// TestTablesAreWhole parses every line, and looks for what refers to nothing.
func TestTablesAreWhole(t *testing.T) {
	if n := len(Services()); n < 10 {
		t.Fatalf("%d tables, want those of ten services", n)
	}
	for _, service := range Services() {
		m, err := Load(service)
		if err != nil {
			t.Fatal(err)
		}
		if m.Service != service || m.Protocol == "" || m.SigningName == "" || m.APIVersion == "" || m.Source == "" {
			t.Errorf("%s: incomplete metadata %+v", service, m.Metadata)
		}
		refers := func(from, to string) {
			if to != "" && m.Shape(to) == nil {
				t.Errorf("%s: %s refers to %s, which is not there", service, from, to)
			}
		}
		for _, name := range m.Operations() {
			o := m.Operation(name)
			refers(name, o.Input)
			refers(name, o.Output)
			for _, e := range o.Errors {
				refers(name, e)
			}
		}
		for _, name := range m.Shapes() {
			s := m.Shape(name)
			for _, r := range s.Members {
				refers(name, r.Shape)
			}
			for _, r := range []*Ref{s.Member, s.Key, s.Value} {
				if r != nil {
					refers(name, r.Shape)
				}
			}
			for _, r := range s.Required {
				if s.MemberNamed(r) == nil {
					t.Errorf("%s: %s requires %s, which is no member", service, name, r)
				}
			}
		}
	}
}

// TestPatterns compiles every pattern, and holds the rewritten ones against values.
func TestPatterns(t *testing.T) {
	seen := map[string]bool{}
	for _, service := range Services() {
		m, err := Load(service)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range m.Shapes() {
			p := m.Shape(name).Pattern
			if p == "" {
				continue
			}
			seen[p] = true
			if _, err := Regexp(p); err != nil {
				t.Errorf("%s: %s: %v", service, name, err)
			}
		}
	}
	for p := range rewritten {
		if !seen[p] {
			t.Errorf("no table has the rewritten pattern %s", p)
		}
		if _, err := regexp.Compile(p); err == nil {
			t.Logf("RE2 takes %s as it is; it means something else there", p)
		}
	}
}

// BenchmarkLoad is what a service costs a start before any of its shapes is used: go test -bench Load ./api/model
func BenchmarkLoad(b *testing.B) {
	for _, service := range []string{"ec2", "ecs", "sts"} {
		b.Run(service, func(b *testing.B) {
			for b.Loop() {
				if _, err := load(service); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestErrorShape finds exceptions by their code and by their shape's name.
func TestErrorShape(t *testing.T) {
	m, err := Load("elasticloadbalancingv2")
	if err != nil {
		t.Fatal(err)
	}
	byCode, byName := m.ErrorShape("LoadBalancerNotFound"), m.ErrorShape("LoadBalancerNotFoundException")
	if byCode == nil || byCode != byName || byCode.Error.Status != 400 {
		t.Errorf("got %+v and %+v", byCode, byName)
	}
	if m.ErrorShape("Nonsense") != nil || m.Shape("Nonsense") != nil || m.Operation("Nonsense") != nil {
		t.Error("found nonsense")
	}
	if _, err := Load("nonsense"); err == nil {
		t.Error("loaded nonsense")
	}
}

// TestRewrittenPatterns holds what was rewritten by hand against values that the original takes and refuses.
func TestRewrittenPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern    string
		good, evil []string
	}{
		{`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*`, []string{"", "a b\r\n", "é😀"}, []string{"\x00", "a\x1f"}},
		{`[\u0009\u000A\u000D\u0020-\u007e]+`, []string{"a\tb"}, []string{"", "é", "\x00"}},
		{`[\u0020-\u00FF]+`, []string{"ÿ"}, []string{"Ā", "\n"}},
		{`(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`, []string{"/", "/a/", "/a/b/"}, []string{"", "a/", "/a", "//a b/"}},
		{`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`, []string{"abc", "a-b", "a-b-c1"}, []string{"a", "-ab", "ab-", "a--b", "A-b"}},
		{`((?=^.{1,127}$)^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\.$)`,
			[]string{"users", "_http._tcp", ".", "a", strings.Repeat("a.", 63) + "a"}, []string{"", "a..b", "-a", "a-", strings.Repeat("a.", 64) + "a", strings.Repeat("a", 64)}},
		{`(?!((^[ ]+.*)|(.*([\u0000-\u001f]|[\u007f-\u009f]|[:/|])+.*)|(.*[ ]+$))).+`, []string{"a", "scale in", "é"}, []string{"", " a", "a ", "a:b", "a/b", "a|b", "a\nb"}},
		{`^[!-~]{1,1024}$`, []string{"a!", strings.Repeat("a", 1024)}, []string{"", "a b", strings.Repeat("a", 1025)}},
		{`^.{1,100000}$`, []string{"a", strings.Repeat("é", 100000)}, []string{"", "a\nb", strings.Repeat("a", 100001)}},
		{`^(?!\s*$).+`, []string{"a", " a"}, []string{"", " ", "a\nb"}},
		{`^([\-]?\d{4}(?!\d{2}\b))((-?)((0[1-9]|1[0-2])(\3([12]\d|0[1-9]|3[01]))?|W([0-4]\d|5[0-2])(-?[1-7])?|(00[1-9]|0[1-9]\d|[12]\d{2}|3([0-5]\d|6[1-6])))([T\s]((([01]\d|2[0-3])((:?)[0-5]\d)?|24\:?00)([\.,]\d(?!:))?)?(\17[0-5]\d([\.,]\d)?)?([zZ]|([\-])([01]\d|2[0-3]):?([0-5]\d)?)?)?)?$`,
			[]string{"2024", "2024-05", "2024-05-06T07:08:09Z", "20240506T070809", "2024-W05-1", "2024-126", "202405T07", "2024-05-06 24:00", "2024-05-06T07:08-01:00"},
			[]string{"", "202405", "2024-0506", "2024-05-06T07:0809", "2024-13", "2024-05-06T25"}},
		{`\p{Print}+`, []string{"a b~"}, []string{"", "é", "\t"}},
		{`[a-z]+`, []string{"abc"}, []string{"abc1", "abc\n", ""}}, // the whole value, unanchored as it is
	} {
		p, err := Regexp(c.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, s := range c.good {
			if !p.MatchString(s) {
				t.Errorf("%s refuses %.40q", c.pattern, s)
			}
		}
		for _, s := range c.evil {
			if p.MatchString(s) {
				t.Errorf("%s takes %.40q", c.pattern, s)
			}
		}
	}
}
