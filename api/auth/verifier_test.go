package auth_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/clock"
)

const (
	key     = "AKIDEXAMPLE"
	secret  = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	account = "000000000000"
)

var noon = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

// sessions knows one long-term key and, under the same id, one temporary credential.
type sessions struct {
	token   string
	expires time.Time
}

func (s sessions) Lookup(_ context.Context, id, token string) (auth.Credential, bool, error) {
	c := auth.Credential{SecretAccessKey: secret, Identity: api.Identity{Account: account}}
	if token != "" {
		c.SessionToken, c.Expires = s.token, s.expires
	}
	return c, id == key, nil
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Method, URL, Body string
		Headers                 map[string]string
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	v := auth.NewVerifier(sessions{token: "AQoDYXdzEPT//////////wEXAMPLE"}, clock.NewFake(noon))
	for _, vec := range vectors {
		t.Run(vec.Name, func(t *testing.T) {
			r := received(t, vec.Method, vec.URL, vec.Headers, vec.Body)
			if err := verify(v, r, vec.Body); err != nil {
				t.Errorf("good signature: %v", err)
			}
			if err := verify(v, r, vec.Body+" "); code(err, "json") != "InvalidSignatureException" {
				t.Errorf("changed body: %v", err)
			}
			r = received(t, vec.Method, vec.URL, vec.Headers, vec.Body)
			r.Host = "elsewhere.example"
			if err := verify(v, r, vec.Body); code(err, "query") != "SignatureDoesNotMatch" {
				t.Errorf("changed host: %v", err)
			}
		})
	}
}

// received is the request as net/http's server reads it off the wire.
func received(t testing.TB, method, target string, headers map[string]string, body string) *http.Request {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(method + " " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\n")
	for k, v := range headers {
		text.WriteString(k + ": " + v + "\r\n")
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text.String() + "\r\n" + body)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func verify(v *auth.Verifier, r *http.Request, body string) error {
	sig, err := auth.Parse(r)
	if err != nil {
		return err
	}
	if sig == nil {
		return auth.Missing()
	}
	_, err = v.Verify(r.Context(), r, sig, []byte(body))
	return err
}

// code is what a client of the protocol gets for err; empty without one.
func code(err error, protocol string) string {
	if f, ok := err.(*auth.Failure); ok {
		return f.In(protocol).Code
	}
	return ""
}

func sha256Of(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// The Go SDK's signer as a second oracle, for what botocore does not send.
func TestGoSDKSigner(t *testing.T) {
	clk := clock.NewFake(noon)
	v := auth.NewVerifier(sessions{}, clk)
	signer, creds := v4.NewSigner(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}
	body := "Action=DescribeVpcs&Version=2016-11-15"
	for name, payload := range map[string]string{"hash": sha256Of(body), "unsigned": "UNSIGNED-PAYLOAD"} {
		r := received(t, "POST", "http://127.0.0.1:4566/a%2Fb/c?x=%2B&y=1+2", map[string]string{"X-Amz-Content-Sha256": payload, "X-Odd": " a  b "}, body)
		r.URL.Host = "127.0.0.1:4566"
		if err := signer.SignHTTP(t.Context(), creds, r, payload, "ec2", "eu-west-1", noon); err != nil {
			t.Fatal(err)
		}
		if err := verify(v, r, body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		other := verify(v, r, "Action=Other")
		if name == "hash" && code(other, "ec2") != "AuthFailure" {
			t.Errorf("hash: changed body: %v", other)
		}
		if name == "unsigned" && other != nil {
			t.Errorf("an unsigned payload is not part of the signature, but: %v", other)
		}
	}
	r := received(t, "GET", "http://127.0.0.1:4566/?X-Amz-Expires=3600", nil, "")
	r.URL.Host = "127.0.0.1:4566"
	empty := sha256.Sum256(nil)
	uri, _, err := signer.PresignHTTP(t.Context(), creds, r, hex.EncodeToString(empty[:]), "sts", "eu-west-1", noon)
	if err != nil {
		t.Fatal(err)
	}
	presigned := received(t, "GET", uri, nil, "")
	clk.Advance(time.Hour)
	if err := verify(v, presigned, ""); err != nil {
		t.Errorf("presigned, at the end of its hour: %v", err)
	}
	clk.Advance(time.Second)
	if err := verify(v, presigned, ""); code(err, "query") != "SignatureDoesNotMatch" || !strings.HasPrefix(err.Error(), "Signature expired: ") {
		t.Errorf("presigned, after its hour: %v", err)
	}
}

// signed is a good request of the kind the SDKs send, for the failures to be made of.
func signed(t *testing.T, token string) *http.Request {
	t.Helper()
	headers := map[string]string{"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}
	r := received(t, "POST", "http://127.0.0.1:4566/", headers, "{}")
	r.URL.Host = "127.0.0.1:4566"
	sum := sha256.Sum256([]byte("{}"))
	creds := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hex.EncodeToString(sum[:]), "ecs", "us-east-1", noon); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFailures(t *testing.T) {
	edit := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		}
	}
	for name, c := range map[string]struct {
		spoil            func(*http.Request)
		token            string
		at               time.Duration
		json, query, ec2 string
		message          string // prefix
	}{
		"no signature":  {func(r *http.Request) { r.Header.Del("Authorization") }, "", 0, "MissingAuthenticationTokenException", "MissingAuthenticationToken", "MissingAuthenticationToken", "Missing Authentication Token"},
		"no credential": {edit("Credential=", "Other="), "", 0, "IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature", "Authorization header requires 'Credential' parameter."},
		"no equal sign": {edit("Signature=", "Signature:"), "", 0, "IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature", "'Signature:"},
		"no date":       {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, "", 0, "IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature", "Authorization header requires existence of either a 'X-Amz-Date'"},
		"short scope":   {edit("/aws4_request", ""), "", 0, "IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature", "Credential must have exactly 5"},
		"other algorithm": {edit("AWS4-HMAC-SHA256", "AWS4-HMAC-MD5"), "", 0, "IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature",
			"Unsupported AWS 'algorithm'"},
		"wrong signature": {edit("Signature=", "Signature=0"), "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "The request signature we calculated"},
		"other day":       {edit("/20150830/", "/20150829/"), "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "Date in Credential scope"},
		"other region":    {edit("/us-east-1/", "/eu-west-1/"), "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "The request signature we calculated"},
		"no region":       {edit("/us-east-1/", "/..%2f/"), "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "Credential should be scoped to a valid region"},
		"other target": {func(r *http.Request) {
			r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DeleteCluster")
		}, "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "The request signature we calculated"},
		"unsigned header": {func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public") }, "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "There were headers present"},
		"unsigned host":   {edit("host;", ""), "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "'Host' or ':authority' must be"},
		"streaming":       {func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, "", 0, "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "There were headers present"},
		"too old":         {nil, "", auth.MaxSkew + time.Second, "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T125101Z - 15 min.)"},
		"too new":         {nil, "", -auth.MaxSkew - time.Second, "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T122059Z + 15 min.)"},
		"oldest allowed":  {nil, "", auth.MaxSkew, "", "", "", ""},
		"unknown key":     {edit("AKIDEXAMPLE", "AKIDOTHER"), "", 0, "UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure", "The security token included in the request is invalid"},
		"good token":      {nil, "good", 0, "", "", "", ""},
		"wrong token":     {nil, "bad", 0, "UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure", "The security token included in the request is invalid"},
		"expired token":   {nil, "good", time.Minute, "ExpiredTokenException", "ExpiredToken", "RequestExpired", "The security token included in the request is expired"},
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, c.token)
			if c.spoil != nil {
				c.spoil(r)
			}
			v := auth.NewVerifier(sessions{"good", noon.Add(time.Minute)}, clock.NewFake(noon.Add(c.at)))
			err := verify(v, r, "{}")
			if c.json == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			for protocol, want := range map[string]string{"json": c.json, "rest-json": c.json, "query": c.query, "ec2": c.ec2} {
				if got := code(err, protocol); got != want {
					t.Errorf("%s: %v has code %q, want %q", protocol, err, got, want)
				}
			}
			if err != nil && !strings.HasPrefix(err.Error(), c.message) {
				t.Errorf("message %q, want %q…", err, c.message)
			}
		})
	}
}

func TestChangedSecretFindsNoOldKey(t *testing.T) {
	s, err := auth.NewStatic(auth.Root{Account: account, AccessKeyID: key, SecretAccessKey: secret})
	if err != nil {
		t.Fatal(err)
	}
	v := auth.NewVerifier(s, clock.NewFake(noon))
	for range 2 { // computed, then from the cache
		if err := verify(v, signed(t, ""), "{}"); err != nil {
			t.Fatal(err)
		}
	}
	c := s[key]
	c.SecretAccessKey = "another"
	s[key] = c
	if err := verify(v, signed(t, ""), "{}"); code(err, "json") != "InvalidSignatureException" {
		t.Errorf("old secret: %v", err)
	}
}

func TestBasic(t *testing.T) {
	s, err := auth.NewStatic(auth.Root{Account: account, AccessKeyID: key, SecretAccessKey: secret}, auth.Root{Account: "111111111111", AccessKeyID: "second", SecretAccessKey: "2"})
	if err != nil {
		t.Fatal(err)
	}
	v := auth.NewVerifier(s, clock.Real{})
	for _, c := range []struct{ user, password, account, code string }{
		{key, secret, account, ""},
		{"second", "2", "111111111111", ""},
		{key, "2", "", "UnrecognizedClientException"},
		{"nobody", secret, "", "UnrecognizedClientException"},
	} {
		r := received(t, "GET", "http://127.0.0.1/", nil, "")
		r.SetBasicAuth(c.user, c.password)
		who, ok, err := v.Basic(t.Context(), r)
		if !ok || who.Account != c.account || code(err, "json") != c.code {
			t.Errorf("%s:%s: account %q, ok %v, error %v", c.user, c.password, who.Account, ok, err)
		}
	}
	if _, ok, err := v.Basic(t.Context(), received(t, "GET", "http://127.0.0.1/", nil, "")); ok || err != nil {
		t.Errorf("without any: ok %v, error %v", ok, err)
	}
}

func TestStaticRefusesNonsense(t *testing.T) {
	for name, roots := range map[string][]auth.Root{
		"short account":  {{Account: "1", AccessKeyID: "a", SecretAccessKey: "b"}},
		"no secret":      {{Account: account, AccessKeyID: "a"}},
		"two of one key": {{account, "a", "b"}, {"111111111111", "a", "c"}},
	} {
		if _, err := auth.NewStatic(roots...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRootOnly(t *testing.T) {
	root := &api.Call{Identity: api.Identity{Account: account, Root: true}}
	if err := (auth.RootOnly{}).Authorize(t.Context(), root, api.Access{Action: "ecs:ListClusters"}); err != nil {
		t.Errorf("root: %v", err)
	}
	if err := (auth.RootOnly{}).Authorize(t.Context(), root, api.Access{Action: "ecr:BatchGetImage", Resources: []string{"arn:aws:ecr:a:999999999999:repository/x"}}); err == nil {
		t.Error("root was let into another account")
	}
	user := &api.Call{Identity: api.Identity{Account: account, ARN: "arn:aws:iam::000000000000:user/u"}}
	err := (auth.RootOnly{}).Authorize(t.Context(), user, api.Access{Action: "ecs:ListClusters"})
	if code(err, "json") != "AccessDeniedException" || code(err, "query") != "AccessDenied" || code(err, "ec2") != "UnauthorizedOperation" {
		t.Errorf("user: %v", err)
	}
}
