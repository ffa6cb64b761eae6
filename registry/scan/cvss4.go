package scan

import (
	"math"
	"strings"
)

// cvss4Levels are the values of the base metrics of CVSS 4.0, the worst first.
var cvss4Levels = map[string]string{
	"AV": "NALP", "AC": "LH", "AT": "NP", "PR": "NLH", "UI": "NPA",
	"VC": "HLN", "VI": "HLN", "VA": "HLN", "SC": "HLN", "SI": "HLN", "SA": "HLN",
}

// What a vulnerable system loses: EQ3 with EQ6 of the specification.
const (
	losesMuch   = iota // 0 0: VC:H and VI:H
	_                  // 0 1
	losesSome          // 1 0: one of VC, VI, VA is H
	_                  // 1 1
	losesLittle        // 2 1
)

// cvss4Sets are scores in tenths, by EQ1, EQ2, EQ3 with EQ6, and EQ4 less 1: those of the specification's 270 that base metrics come to
// or next to. Where nothing else is said there are exploits (EQ5 is 0), nobody's safety is concerned (EQ4 is not 0), and all that can be
// lost is worth much.
var cvss4Sets = [3][2][5][2]float64{
	{{{100, 93}, {96, 90}, {93, 88}, {92, 80}, {79, 69}}, {{95, 92}, {91, 81}, {92, 84}, {82, 70}, {71, 63}}},
	{{{94, 87}, {89, 75}, {86, 72}, {76, 57}, {65, 53}}, {{90, 77}, {77, 66}, {74, 61}, {59, 52}, {58, 23}}},
	{{{86, 70}, {74, 54}, {72, 53}, {57, 36}, {47, 24}}, {{73, 54}, {55, 43}, {61, 46}, {51, 18}, {24, 10}}},
}

// cvss4Score is the base score of a vector of CVSS 4.0 (section 8 of the specification). There is no formula: experts have scored sets of
// vectors. A vector scores as the worst ones of its set, less the mean, over the ways to come to a next set, of the part of that way that it has
// gone. The worst ones of a set are all as far from the worst vector there is, so a distance is a difference of sums.
func cvss4Score(vector string) (score float64, ok bool) {
	rest, isFour := strings.CutPrefix(vector, "CVSS:4.0/")
	if !isFour {
		return 0, false
	}
	level := map[string]int{}
	for part := range strings.SplitSeq(rest, "/") {
		metric, value, _ := strings.Cut(part, ":")
		if levels, base := cvss4Levels[metric]; base {
			i := strings.Index(levels, value)
			if i < 0 || len(value) != 1 {
				return 0, false
			}
			level[metric] = i
		}
	}
	if len(level) != len(cvss4Levels) {
		return 0, false
	}
	sum := func(metrics ...string) (n int) {
		for _, m := range metrics {
			n += level[m]
		}
		return n
	}
	worst := func(metrics ...string) (n int) { // how many are at their worst
		for _, m := range metrics {
			if level[m] == 0 {
				n++
			}
		}
		return n
	}
	if sum("VC", "VI", "VA", "SC", "SI", "SA") == 2*6 {
		return 0, true // nothing is lost
	}
	var eq1, eq2, loses, eq4 int
	if n := worst("AV", "PR", "UI"); level["AV"] == 3 || n == 0 {
		eq1 = 2
	} else if n < 3 {
		eq1 = 1
	}
	if worst("AC", "AT") < 2 {
		eq2 = 1
	}
	if worst("VC", "VI", "VA") == 0 {
		loses = losesLittle
	} else if worst("VC", "VI") < 2 {
		loses = losesSome
	}
	if worst("SC", "SI", "SA") == 0 {
		eq4 = 1
	}
	of := cvss4Sets[eq1][eq2][loses][eq4]
	less, ways := 0.0, 1.0 // one way, to exploits that are not known, nobody has gone
	way := func(next float64, gone, length int) {
		less += (of - next) * float64(gone) / float64(length)
		ways++
	}
	if eq1 < 2 {
		way(cvss4Sets[eq1+1][eq2][loses][eq4], sum("AV", "PR", "UI")-eq1, []int{1, 4}[eq1])
	}
	if eq2 < 1 {
		way(cvss4Sets[eq1][eq2+1][loses][eq4], sum("AC", "AT"), 1)
	}
	switch at := cvss4Sets[eq1][eq2]; loses {
	case losesMuch:
		way(max(at[loses+1][eq4], at[losesSome][eq4]), sum("VC", "VI", "VA"), 7)
	case losesSome:
		way(at[loses+1][eq4], sum("VC", "VI", "VA")-1, 8)
	}
	if eq4 < 1 {
		way(cvss4Sets[eq1][eq2][loses][eq4+1], sum("SC", "SI", "SA"), 5)
	}
	return math.Round(max(of-less/ways, 0)+1e-6) / 10, true // a half, however it was computed, rounds up
}
