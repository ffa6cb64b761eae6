package scheduler

import (
	"strings"
	"testing"
)

var instance = map[string][]string{
	"attribute:ecs.instance-type":     {"t2.small"},
	"attribute:ecs.availability-zone": {"us-east-1a"},
	"attribute:stack":                 {"prod"},
	"attribute:empty":                 {""},
	"task:group":                      {"service:web", "family:job"},
	"agentconnected":                  {"true"},
	"agentversion":                    {"1.14.0"},
	"registeredat":                    {"2026-01-02T00:00:00Z"},
	"runningtaskscount":               {"7"},
}

func subjectOf(m map[string][]string) Subject { return func(name string) []string { return m[name] } }

func TestExpressions(t *testing.T) {
	for text, want := range map[string]bool{
		"attribute:stack == prod":                                        true,
		"attribute:stack equals prod":                                    true,
		"attribute:stack != prod":                                        false,
		"attribute:missing != prod":                                      true,
		"attribute:stack exists":                                         true,
		"attribute:missing exists":                                       false,
		"attribute:missing !exists":                                      true,
		"attribute:missing not_exists":                                   true,
		"attribute:empty exists":                                         true,
		"attribute:ecs.availability-zone in [us-east-1a, us-east-1b]":    true,
		"attribute:ecs.availability-zone not_in [us-east-1a]":            false,
		"attribute:ecs.availability-zone !in [us-east-1b]":               true,
		"attribute:ecs.instance-type =~ t2.*":                            true,
		"attribute:ecs.instance-type =~ t2":                              false, // the whole value
		"attribute:ecs.instance-type matches (t2|m5)\\.(small|large)":    true,
		"(attribute:ecs.instance-type =~ t2.* and attribute:stack == x)": false,
		"attribute:ecs.instance-type !~ g2.*":                            true,
		"task:group == service:web":                                      true,
		"task:group != service:web":                                      false,
		"task:group == service:db":                                       false,
		"not(task:group == database)":                                    true,
		"!(task:group == service:web)":                                   false,
		"agentConnected == true":                                         true,
		"agentVersion >= 1.9.0":                                          true,
		"agentVersion < 1.9":                                             false,
		"runningTasksCount > 10":                                         false,
		"runningTasksCount greater_than_equal 7":                         true,
		"registeredAt >= 2026-01-01T00:00:00Z":                           true,
		"attribute:stack == 'prod'":                                      true,
		`attribute:stack == "pr od" or attribute:stack == prod`:          true,
		// and binds closer than or
		"attribute:stack == prod or attribute:stack == a and attribute:stack == b":  true,
		"(attribute:stack == prod or attribute:stack == a) && attribute:stack == b": false,
	} {
		e, err := ParseExpression(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := e.Match(subjectOf(instance)); got != want {
			t.Errorf("%s = %v", text, got)
		}
	}
}

func TestBadExpressions(t *testing.T) {
	for _, text := range []string{
		"", "attribute:", "attribute:x", "attribute:x ==", "colour == red", "attribute:x == a b", "(attribute:x == a", "attribute:x in a",
		"attribute:x in [a", "attribute:x in []", "attribute:x =~ (", "attribute:x == 'a", "attribute:x == a and", "not", "attribute:x ~ a",
		strings.Repeat("(", 100) + "attribute:x == a" + strings.Repeat(")", 100), "attribute:x == " + strings.Repeat("a", maxExpressionLength),
	} {
		if _, err := ParseExpression(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// FuzzParseExpression says that no text makes the parser or the evaluation fail, and that "not" is the exact complement.
func FuzzParseExpression(f *testing.F) {
	f.Add("attribute:ecs.instance-type =~ t2.* and not(task:group == service:web)")
	f.Add("agentVersion >= 1.9 || attribute:x in [a,'b c',\"d\"]")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpression(text)
		if err != nil {
			return
		}
		complement, err := ParseExpression("not(" + text + ")")
		if err != nil {
			if len(text)+5 > maxExpressionLength || strings.Count(text, "(") >= maxExpressionDepth/2 || strings.Contains(text, "!") || strings.Contains(strings.ToLower(text), "not") {
				return // too long or too deep by what was put around it
			}
			t.Fatalf("%q is an expression, its negation is not: %v", text, err)
		}
		for _, m := range []map[string][]string{instance, {}} {
			if e.Match(subjectOf(m)) == complement.Match(subjectOf(m)) {
				t.Fatalf("%q and its negation agree", text)
			}
		}
	})
}
