package scan

import (
	"math"
	"strings"
)

// Weights of the metrics of CVSS 3.0 and 3.1 ("7.4. Metric Values" of the specification); PR depends on the scope.
var cvss3 = map[string]map[string]float64{
	"AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
	"AC": {"L": 0.77, "H": 0.44},
	"PR": {"N": 0.85, "L": 0.62, "H": 0.27},
	"UI": {"N": 0.85, "R": 0.62},
	"C":  {"H": 0.56, "L": 0.22, "N": 0},
	"I":  {"H": 0.56, "L": 0.22, "N": 0},
	"A":  {"H": 0.56, "L": 0.22, "N": 0},
}

// cvss3Score is the base score of a vector of CVSS 3.
func cvss3Score(vector string) (score float64, ok bool) {
	rest, isThree := strings.CutPrefix(vector, "CVSS:3.")
	if !isThree {
		return 0, false
	}
	value := map[string]string{}
	for part := range strings.SplitSeq(rest, "/") {
		k, v, _ := strings.Cut(part, ":")
		value[k] = v
	}
	changed := value["S"] == "C"
	if !changed && value["S"] != "U" {
		return 0, false
	}
	w := map[string]float64{}
	for metric, weights := range cvss3 {
		weight, known := weights[value[metric]]
		if !known {
			return 0, false
		}
		w[metric] = weight
	}
	if changed {
		switch value["PR"] {
		case "L":
			w["PR"] = 0.68
		case "H":
			w["PR"] = 0.5
		}
	}
	iss := 1 - (1-w["C"])*(1-w["I"])*(1-w["A"])
	impact := 6.42 * iss
	if changed {
		impact = 7.52*(iss-0.029) - 3.25*math.Pow(iss-0.02, 15)
	}
	if impact <= 0 {
		return 0, true
	}
	sum := impact + 8.22*w["AV"]*w["AC"]*w["PR"]*w["UI"]
	if changed {
		sum *= 1.08
	}
	return roundUp(min(sum, 10)), true
}

// roundUp is "Appendix A - Floating Point Rounding" of CVSS 3.1.
func roundUp(x float64) float64 {
	n := int(math.Round(x * 100000))
	if n%10000 == 0 {
		return float64(n) / 100000
	}
	return float64(n/10000+1) / 10
}

// severityOf rates a score ("Qualitative Severity Rating Scale").
func severityOf(score float64) Severity {
	switch {
	case score >= 9:
		return Critical
	case score >= 7:
		return High
	case score >= 4:
		return Medium
	case score > 0:
		return Low
	}
	return Informational
}

// severityNamed is the severity that a vendor's word means.
func severityNamed(word string) Severity {
	switch strings.ToLower(word) {
	case "critical":
		return Critical
	case "high", "important":
		return High
	case "medium", "moderate":
		return Medium
	case "low":
		return Low
	case "negligible", "unimportant", "info", "informational", "none":
		return Informational
	}
	return Undefined
}
