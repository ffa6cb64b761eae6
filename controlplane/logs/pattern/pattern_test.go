package pattern

import (
	"maps"
	"strings"
	"testing"
)

const trail = `{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],` +
	`"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"cluster.name":"c","latency":12.50,"ok":true,"user":{"id":"7","mfa":false}}`

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{"", "anything", true},
		{"  ", "", true},
		{"ERROR", "[ERROR 401] UNAUTHORIZED REQUEST", true},
		{"ERROR", "error", false},
		{"ERROR ARGUMENTS", "ERROR 1 MISSING ARGUMENTS", true},
		{"ERROR ARGUMENTS", "ERROR only", false},
		{"?ERROR ?WARN", "a WARN", true},
		{"?ERROR ?WARN", "an INFO", false},
		{"ERROR -ARGUMENTS", "ERROR 1", true},
		{"ERROR -ARGUMENTS", "ERROR ARGUMENTS", false},
		{"-INFO", "DEBUG", true},
		{"INFO ?ERROR", "INFO", true}, // ?ERROR is ignored
		{`"INTERNAL SERVER ERROR"`, "500 INTERNAL SERVER ERROR", true},
		{`"INTERNAL SERVER ERROR"`, "INTERNAL ERROR SERVER", false},
		{`"say \"hi\""`, `they say "hi"`, true},
		{`-"a b"`, "a b", false},
		{`%AUTHORIZED%`, "[ERROR 401] UNAUTHORIZED", true},
		{`%^[Ee]rror|[Ff]ail% -%\d{3}%`, "a fail", true},
		{`%^[Ee]rror|[Ff]ail% -%\d{3}%`, "a fail 404", false},

		{`{ $.eventType = "UpdateTrail" }`, trail, true},
		{`{$.eventType="UpdateTrail"}`, trail, true},
		{`{ $.eventType = Update* }`, trail, true},
		{`{ $.eventType = "*Trail" }`, trail, true},
		{`{ $.eventType = "*date*" }`, trail, true},
		{`{ $.eventType != "UpdateTrail" }`, trail, false},
		{`{ $.sourceIPAddress != 123.123.* }`, trail, true},
		{`{ $.sourceIPAddress = 111.111.* }`, trail, true},
		{`{ $.arrayKey[0] = "value" }`, trail, true},
		{`{ $.arrayKey[1] = "value" }`, trail, false},
		{`{ $.arrayKey[*] = "another*" }`, trail, true},
		{`{ $.objectList[1].id = 2 }`, trail, true},
		{`{ $.objectList[7].id = 2 }`, trail, false},
		{`{ $.SomeObject IS NULL }`, trail, true},
		{`{ $.eventType IS NULL }`, trail, false},
		{`{ $.SomeOther NOT EXISTS }`, trail, true},
		{`{ $.SomeObject NOT EXISTS }`, trail, false},
		{`{ $.SomeObject EXISTS }`, trail, true},
		{`{ $.missing != "x" }`, trail, false},
		{`{ $.eventType = * }`, trail, true},
		{`{ $.latency = 12.5 }`, trail, true},
		{`{ $.latency > 12 && $.latency <= 1.25e1 }`, trail, true},
		{`{ $.latency < 12 || $.ok IS TRUE }`, trail, true},
		{`{ $.user.mfa IS FALSE }`, trail, true},
		{`{ $.user.id = 7 }`, trail, true},
		{`{ $.['cluster.name'] = "c" }`, trail, true},
		{`{ ($.user.id = 1 || $.user.id = "7") && $.ok is true }`, trail, true},
		{`{ $.ok IS TRUE || $.ok IS TRUE && $.ok IS FALSE }`, trail, true}, // && binds closer
		{`{ $.eventType = %^Upd[a-z]+% }`, trail, true},
		{`{ $.eventType != %Trail$% }`, trail, false},
		{`{ $.user = "x" }`, trail, false},
		{`{ $.a = 1 }`, "not json", false},
		{`{ $.a = 1 }`, `{"a":1} trailing`, false},
		{`{ $.a = 1 }`, `{"a":"1"}`, true},
		{`{ $.[0] = 1 }`, `[1]`, true},

		{`[ip, user, username, timestamp, request, status_code, bytes]`, line, true},
		{`[ip, user, username]`, line, false},
		{`[ip, ..., status_code = 404, bytes]`, line, true},
		{`[..., status_code = 4*, bytes]`, line, true},
		{`[..., status_code = 404 || status_code = 410, bytes > 1000]`, line, true},
		{`[..., bytes > 2000]`, line, false},
		{`[ip = 127.0.0.1, ...]`, line, true},
		{`[ip = %127\.0\.0\.[1-9]%, ...]`, line, true},
		{`[ip, user, username, timestamp, request = *html*, status_code = 4*, bytes]`, line, true},
		{`[ip != "10.*" && ip != "127.*", ...]`, line, false},
		{`[(a = 1 || a = 2) && a != 2, b]`, "1 x", true},
		{`[a, , c]`, "1 2 3", true},
		{`[a, ...]`, "", false},
		{`[...]`, "", true},
		{`[a=1 , b = "x y"]`, `1 "x y"`, true},
	} {
		p, err := Compile(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
		} else if got := p.Match(c.message); got != c.want {
			t.Errorf("%s on %s: %v", c.pattern, c.message, got)
		}
	}
}

const line = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`

func TestExtract(t *testing.T) {
	for _, c := range []struct {
		pattern, message string
		want             map[string]string
	}{
		{`ERROR`, "ERROR", map[string]string{}},
		{`{ $.latency > 1 && $.objectList[1].name = b && $.user.mfa IS FALSE }`, trail,
			map[string]string{"$.latency": "12.50", "$.objectList[1].name": "b", "$.user.mfa": "false"}},
		{`[ip, ..., status_code = 4*, bytes]`, line, map[string]string{"$ip": "127.0.0.1", "$2": "Prod", "$3": "frank",
			"$4": "10/Oct/2000:13:25:15 -0700", "$5": "GET /index.html HTTP/1.0", "$status_code": "404", "$bytes": "1534"}},
	} {
		p, err := Compile(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Extract(c.message); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v", c.pattern, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, p := range []string{
		`"open`, `%open`, `%%`, `?`, `a - b`, `a"b"`, `%a(b)%`, `%a!%`, `%ä%`, `%a% %b% %c%`, `%a{2000}%`,
		`{`, `{}`, `{ $ = 1 }`, `{ $. = 1 }`, `{ $.a }`, `{ $.a = }`, `{ $.a > x }`, `{ $.a > "5" }`, `{ $.a IS }`, `{ $.a NOT }`,
		`{ $.a = 1`, `{ ($.a = 1 }`, `{ $.a = 1 } x`, `{ $.a[x] = 1 }`, `{ $.a[1 = 1 }`, `{ a = 1 }`, `{ $.a = 1 && }`,
		`[`, `[a`, `[a b]`, `[..., ...]`, `[a = 1 || b = 2]`, `[a = ]`, `[a] x`, `[a > x]`,
		`{ ` + strings.Repeat("(", 60) + `$.a = 1` + strings.Repeat(")", 60) + ` }`,
	} {
		if _, err := Compile(p); err == nil {
			t.Errorf("%s is taken", p)
		} else if err.Error() == "" {
			t.Errorf("%s: no reason", p)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`?a -b "c d"`, `%x% y`, `{ $.a[0] = 1 && ($.b IS NULL || $.['c'] NOT EXISTS) }`, `[a, ..., b = 1* || b > 2]`} {
		f.Add(s, trail)
		f.Add(s, line)
	}
	f.Fuzz(func(t *testing.T, pattern, message string) {
		p, err := Compile(pattern)
		if err != nil {
			return
		}
		p.Match(message)
		p.Extract(message)
	})
}

func BenchmarkMatch(b *testing.B) {
	for name, s := range map[string]string{"terms": `ERROR -"health check"`, "json": `{ $.latency > 12 && $.user.id = "7" }`, "fields": `[..., status = 4*, bytes]`} {
		p, err := Compile(s)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Match(trail)
			}
		})
	}
}
