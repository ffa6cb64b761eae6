package scan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
)

// The scores are those of FIRST's calculator.
func TestCVSS4(t *testing.T) {
	for vector, want := range map[string]float64{
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H":                 10,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N":                 9.3,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:H/SI:H/SA:H":                 7.9,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N":                 0,
		"CVSS:4.0/AV:P/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N":                 1,
		"CVSS:4.0/AV:L/AC:L/AT:N/PR:L/UI:P/VC:N/VI:H/VA:H/SC:N/SI:L/SA:L":                 5.2,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:P/VC:H/VI:L/VA:N/SC:H/SI:H/SA:H":                 8.6, // 8.55
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N/E:U/MAV:P/R:A/X": 9.3, // its base score
	} {
		if got, ok := cvss4Score(vector); !ok || got != want {
			t.Errorf("%s scores %v (%v), want %v", vector, got, ok, want)
		}
	}
	const whole = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA"
	for _, bad := range []string{"", "CVSS:4.0/", "CVSS:4.0", whole, whole + ":", whole + ":S", whole + ":HL", whole + ":X", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"} {
		if score, ok := cvss4Score(bad); ok {
			t.Errorf("%q scores %v", bad, score)
		}
	}
}

// TestCVSS4OfAll: every vector of base metrics. The sum is that of the scores that go-cvss 0.6.4 gives, but for 450 vectors that score a half, which it
// rounds down and FIRST's calculator up.
func TestCVSS4OfAll(t *testing.T) {
	sum, n := sha256.New(), 0
	var all func(vector string, metrics ...string)
	all = func(vector string, metrics ...string) {
		if len(metrics) == 0 {
			score, ok := cvss4Score(vector)
			if !ok || score < 0 || score > 10 {
				t.Fatalf("%s scores %v, %v", vector, score, ok)
			}
			fmt.Fprintf(sum, "%.1f\n", score)
			n++
			return
		}
		for _, level := range cvss4Levels[metrics[0]] {
			all(vector+"/"+metrics[0]+":"+string(level), metrics[1:]...)
		}
	}
	all("CVSS:4.0", "AV", "AC", "AT", "PR", "UI", "VC", "VI", "VA", "SC", "SI", "SA")
	const want = "c03fa30a63957b282f68e73d0c6419de1af387cdb80a36e0a9e0c00e666f46a3"
	if got := hex.EncodeToString(sum.Sum(nil)); n != 104976 || got != want {
		t.Errorf("%d vectors have the sum %s", n, got)
	}
}

// A score of CVSS 3 is what is told where there are both, and one of CVSS 4 is better than a word.
func TestRateByCVSS4(t *testing.T) {
	three := osvSeverity{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:H"}
	four := osvSeverity{Type: "CVSS_V4", Score: "CVSS:4.0/AV:L/AC:L/AT:N/PR:L/UI:P/VC:N/VI:H/VA:H/SC:N/SI:L/SA:L"}
	word := osvSeverity{Type: "Ubuntu", Score: "critical"}
	for _, tc := range []struct {
		of, all  []osvSeverity
		severity Severity
		score    float64
		vector   string
	}{
		{nil, []osvSeverity{four, three}, High, 8.1, three.Score},
		{[]osvSeverity{four}, []osvSeverity{three}, Medium, 5.2, four.Score},
		{nil, []osvSeverity{word, four}, Medium, 5.2, four.Score},
		{[]osvSeverity{word}, nil, Critical, 0, ""},
	} {
		severity, score, vector := rate(&osvRecord{Severity: tc.all}, &osvAffected{Severity: tc.of})
		if severity != tc.severity || score != tc.score || vector != tc.vector {
			t.Errorf("%v, %v: %s %v %q", tc.of, tc.all, severity, score, vector)
		}
	}
}
