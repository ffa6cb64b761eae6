package scan

import (
	"slices"
	"testing"
)

func TestVersions(t *testing.T) {
	for ecosystem, ascending := range map[string][][]string{
		"Debian:12": {
			{"1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-1", "1.0-1+deb12u1", "1.0-1+deb12u2", "1.0-1+deb12u10", "1.0-2", "1.0.1", "1:0.9"},
			{"2.36-9", "2.36-9+deb12u2", "2.36-9+deb12u3", "2.37-1"},
			{"1:8.9p1-3", "1:8.9p1-3ubuntu0.1", "1:8.9p1-3ubuntu0.10"},
			{"0", "0a", "0+", "00.1", "1"},
			{"9223372036854775807", "9223372036854775808", "18446744073709551617"},
		},
		"Alpine:v3.20": {
			{"1.2.12-r0", "1.2.12-r1", "1.2.12-r2", "1.2.12-r10", "1.2.13-r0"},
			{"1.0_alpha", "1.0_alpha2", "1.0_beta", "1.0_pre1", "1.0_rc1", "1.0", "1.0-r1", "1.0_git20240101", "1.0_p1", "1.0_p1-r1", "1.0a", "1.0b", "1.0.1", "1.1"},
			{"0.01", "0.1", "0.9", "0.10"},
		},
		"Go": {{"1.20.9", "1.20.10", "1.21.0-0", "1.21.0-rc.1", "1.21.0", "1.21.3"}, {"0.0.0-20230101000000-abcdefabcdef", "0.17.0"}},
	} {
		order := orderOf(ecosystem)
		for _, list := range ascending {
			for i, a := range list {
				for j, b := range list {
					if got, want := order(a, b), min(max(i-j, -1), 1); min(max(got, -1), 1) != want {
						t.Errorf("%s: %s against %s is %d, want %d", ecosystem, a, b, got, want)
					}
				}
			}
		}
	}
	for _, same := range [][2]string{{"1.0", "0:1.0"}, {"1.00", "1.0"}, {"1.0-0", "1.0"}} {
		if compareDpkg(same[0], same[1]) != 0 {
			t.Errorf("%s and %s are not the same", same[0], same[1])
		}
	}
}

func TestGoVersion(t *testing.T) {
	for in, want := range map[string]string{
		"go1.21.3": "1.21.3", "go1.22rc1": "1.22.0-rc.1", "go1.20.1beta2": "1.20.1-beta.2", "go1.26": "1.26", "go1.22.1 X:boringcrypto": "1.22.1",
		"go1.22.1-google": "1.22.1", "devel go1.23-0123456 Tue": "", "": "",
	} {
		if got := goVersion(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// The scores are those that FIRST publishes for these vectors.
func TestCVSS(t *testing.T) {
	for vector, want := range map[string]float64{
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 9.8,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H": 10,
		"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H": 7.8,
		"CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:H": 8.1,
		"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N": 6.1,
		"CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N": 6.4,
		"CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N": 4.6,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N": 0,
	} {
		if got, ok := cvss3Score(vector); !ok || got != want {
			t.Errorf("%s scores %v (%v), want %v", vector, got, ok, want)
		}
	}
	for _, bad := range []string{"", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", "AV:N/AC:L/Au:N/C:P/I:P/A:P", "CVSS:3.1/AV:N", "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N"} {
		if score, ok := cvss3Score(bad); ok {
			t.Errorf("%q scores %v", bad, score)
		}
	}
	scores := []float64{0, 0.1, 3.9, 4, 6.9, 7, 8.9, 9, 10}
	var got []Severity
	for _, s := range scores {
		got = append(got, severityOf(s))
	}
	if want := []Severity{Informational, Low, Low, Medium, Medium, High, High, Critical, Critical}; !slices.Equal(got, want) {
		t.Errorf("%v are %v", scores, got)
	}
}
