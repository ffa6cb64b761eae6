package pattern

import (
	"strings"
	"testing"
)

const event = `{"source":"aws.ecs","detail-type":"ECS Task State Change","resources":["arn:a","arn:b"],
"detail":{"lastStatus":"STOPPED","version":3,"cpu":"256","half":0.5,"round":300.0,"nothing":null,"yes":true,"none":[],"empty":"",
"containers":[{"name":"web","exitCode":137},{"name":"log","exitCode":0}],"nested":{"a":{"b":"c"}}}}`

func TestMatch(t *testing.T) {
	for pattern, want := range map[string]bool{
		`{"source":["aws.ecs"]}`: true,
		`{"source":["aws.ec2"]}`: false,
		`{"source":["aws.ec2","aws.ecs"],"detail":{"lastStatus":["RUNNING","STOPPED"]}}`: true,
		`{"source":["aws.ecs"],"detail":{"lastStatus":["RUNNING"]}}`:                     false,
		`{"resources":["arn:b"]}`:                                            true,
		`{"resources":["arn:c"]}`:                                            false,
		`{"detail":{"version":[3]}}`:                                         true,
		`{"detail":{"version":["3"]}}`:                                       false,
		`{"detail":{"version":[3.0]}}`:                                       false, // as it is written
		`{"detail":{"round":[300.0]}}`:                                       true,
		`{"detail":{"cpu":[256]}}`:                                           false,
		`{"detail":{"nothing":[null]}}`:                                      true,
		`{"detail":{"missing":[null]}}`:                                      false,
		`{"detail":{"yes":[true]}}`:                                          true,
		`{"detail":{"empty":[""]}}`:                                          true,
		`{"detail":{"nested":{"a":{"b":["c"]}}}}`:                            true,
		`{"detail":{"nested":{"a":{"x":["c"]}}}}`:                            false,
		`{"detail-type":[{"prefix":"ECS Task"}]}`:                            true,
		`{"detail-type":[{"prefix":"Task"}]}`:                                false,
		`{"detail":{"version":[{"prefix":"3"}]}}`:                            false,
		`{"detail-type":[{"suffix":"Change"}]}`:                              true,
		`{"detail":{"lastStatus":[{"equals-ignore-case":"stopped"}]}}`:       true,
		`{"detail":{"lastStatus":[{"anything-but":"RUNNING"}]}}`:             true,
		`{"detail":{"lastStatus":[{"anything-but":["RUNNING","STOPPED"]}]}}`: false,
		`{"detail":{"version":[{"anything-but":[1,2]}]}}`:                    true,
		`{"detail":{"version":[{"anything-but":3}]}}`:                        false,
		`{"detail":{"missing":[{"anything-but":"x"}]}}`:                      false,
		`{"resources":[{"anything-but":"arn:a"}]}`:                           true,
		`{"detail":{"lastStatus":[{"anything-but":{"prefix":"STOP"}}]}}`:     false,
		`{"detail":{"lastStatus":[{"anything-but":{"suffix":"ING"}}]}}`:      true,
		`{"detail":{"lastStatus":[{"exists":true}]}}`:                        true,
		`{"detail":{"lastStatus":[{"exists":false}]}}`:                       false,
		`{"detail":{"missing":[{"exists":false}]}}`:                          true,
		`{"detail":{"missing":[{"exists":true}]}}`:                           false,
		`{"detail":{"nested":[{"exists":true}]}}`:                            false, // of leaves alone
		`{"detail":{"none":[{"exists":true}]}}`:                              false,
		`{"detail":{"nothing":[{"exists":true}]}}`:                           true,
		`{"gone":{"far":[{"exists":false}]}}`:                                true,
		`{"detail":{"version":[{"numeric":["=",3.0]}]}}`:                     true,
		`{"detail":{"version":[{"numeric":[">",3]}]}}`:                       false,
		`{"detail":{"version":[{"numeric":[">",0,"<=",3]}]}}`:                true,
		`{"detail":{"half":[{"numeric":[">=",0.5,"<",1]}]}}`:                 true,
		`{"detail":{"cpu":[{"numeric":[">",0]}]}}`:                           false, // a string
		`{"detail":{"lastStatus":["x",{"prefix":"STO"}]}}`:                   true,
		`{"detail":{"containers":{"exitCode":[{"anything-but":0}]}}}`:        true,
		`{"detail":{"containers":{"name":["web"],"exitCode":[137]}}}`:        true,
		`{"detail":{"containers":{"name":["web"],"exitCode":[0]}}}`:          false, // of two elements
	} {
		p, err := Parse([]byte(pattern))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		if got, err := p.Match([]byte(event)); got != want || err != nil {
			t.Errorf("%s: %v, %v", pattern, got, err)
		}
	}
	if got, err := (&Pattern{}).Match([]byte(event)); !got || err != nil {
		t.Error("no pattern does not match everything")
	}
}

func TestRefused(t *testing.T) {
	for pattern, why := range map[string]string{
		``:                                     "not JSON",
		`[]`:                                   "not an object",
		`{} {}`:                                "behind its end",
		`{}`:                                   "the pattern is empty",
		`{"detail":{}}`:                        "detail is empty",
		`{"source":"aws.ecs"}`:                 "source is neither",
		`{"source":[]}`:                        "source is an empty list",
		`{"source":[["x"]]}`:                   "source has a list within",
		`{"$or":[{"source":["x"]}]}`:           "$or is not supported",
		`{"detail":{"a":[{"wildcard":"x*"}]}}`: "detail.a.wildcard is not supported",
		`{"detail":{"a":[{"cidr":"10.0.0.0/8"}]}}`:         "detail.a.cidr is not supported",
		`{"a":[{"prefix":{"equals-ignore-case":"x"}}]}`:    "a.prefix is not a string",
		`{"a":[{"prefix":""}]}`:                            "a.prefix is empty",
		`{"a":[{"prefix":"x","suffix":"y"}]}`:              "comparison of 2 names",
		`{"a":[{"exists":"yes"}]}`:                         "a.exists is neither",
		`{"a":[{"anything-but":[]}]}`:                      "a.anything-but is an empty list",
		`{"a":[{"anything-but":[true]}]}`:                  "strings and numbers",
		`{"a":[{"anything-but":{"wildcard":"x"}}]}`:        "a.anything-but.wildcard is not supported",
		`{"a":[{"numeric":["=","1"]}]}`:                    "not a number",
		`{"a":[{"numeric":["!=",1]}]}`:                     "is no operator",
		`{"a":[{"numeric":["<",1,">",0]}]}`:                "of two operators",
		`{"a":[{"numeric":["=",5000000001]}]}`:             "between",
		`{"a":[{"numeric":[1]}]}`:                          "not a list of one or two",
		`{"a":["` + strings.Repeat("x", MaxLength) + `"]}`: "longer than",
	} {
		if _, err := Parse([]byte(pattern)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60s: %v, want %q", pattern, err, why)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add(`{"detail":{"a":["x",1,{"numeric":[">",0,"<",5]},{"anything-but":{"prefix":"p"}}]}}`, event)
	f.Fuzz(func(t *testing.T, text, event string) {
		if p, err := Parse([]byte(text)); err == nil {
			p.Match([]byte(event))
		}
	})
}
