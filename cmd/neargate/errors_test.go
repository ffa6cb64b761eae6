package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

// errorCase is one entry of testdata/errors: a request as it goes over the wire, what it is answered, and where AWS is seen
// to answer so. testdata/errors/README.md explains the fields.
type errorCase struct {
	Name    string
	Service string
	Target  string          // X-Amz-Target's operation: makes the request one of the JSON protocol
	Method  string          // POST unless given
	Path    string          // / unless given
	Body    json.RawMessage // an object is sent as it stands, a string as its text
	Sign    string          // how: see signed
	Status  int
	Code    string
	Message string // TIME stands for any time
	Source  string
	Note    string

	ana aws.Credentials // who may do nothing
}

var targets = map[string]string{
	"ecs": "AmazonEC2ContainerServiceV20141113", "ecr": "AmazonEC2ContainerRegistry_V20150921", "servicediscovery": "Route53AutoNaming_v20170314",
}

// TestErrors sends every case to a whole control plane over HTTP.
func TestErrors(t *testing.T) {
	_, url := startControlPlane(t)
	for _, c := range []errorCase{
		{Service: "ecs", Target: "CreateCluster", Body: json.RawMessage(`{"clusterName":"default"}`)},
		{Service: "ecs", Target: "CreateCluster", Body: json.RawMessage(`{"clusterName":"empty"}`)},
		{Service: "ecs", Target: "RegisterTaskDefinition", Body: json.RawMessage(`{"family":"web","containerDefinitions":[{"name":"web","image":"web:1","memory":128,"portMappings":[{"containerPort":80}]}]}`)},
		{Service: "ecr", Target: "CreateRepository", Body: json.RawMessage(`{"repositoryName":"web"}`)},
		{Service: "iam", Body: json.RawMessage(`"Version=2010-05-08&Action=CreateRole&RoleName=deploy&AssumeRolePolicyDocument=%7B%22Statement%22%3A%5B%5D%7D"`)},
		{Service: "iam", Body: json.RawMessage(`"Version=2010-05-08&Action=AttachRolePolicy&RoleName=deploy&PolicyArn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FPowerUserAccess"`)},
	} {
		if status, _, body := c.send(t, url); status != 200 {
			t.Fatalf("%s answered %d: %s", c.Target, status, body)
		}
	}
	ana := newPrincipal(t, url, "test", "test", "").newUser("ana", `{"Effect":"Deny","Action":"none:none","Resource":"*"}`)
	files, _ := filepath.Glob("../../testdata/errors/*.json")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []errorCase
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".json")+"/"+c.Name, func(t *testing.T) {
				if c.Source == "" || c.Source == "neargate" && c.Note == "" {
					t.Error("the case lacks a source")
				}
				c.ana = ana.cred
				status, header, body := c.send(t, url)
				code, message := readError(body)
				message = times.ReplaceAllString(message, "TIME")
				if status != c.Status || code != c.Code || message != c.Message {
					t.Errorf("\ngot  %d %s: %s\nwant %d %s: %s\nbody %s", status, code, message, c.Status, c.Code, c.Message, body)
				}
				if c.Path == "" && header.Get("X-Amzn-Requestid") == "" {
					t.Error("the answer has no request id")
				}
			})
		}
	}
}

var times = regexp.MustCompile(`\d{8}T\d{6}Z`)

// startControlPlane runs a control plane without hosts on a port of its own until the test ends.
func startControlPlane(t *testing.T, change ...func(*controlConfig)) (control *controlPlane, url string) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := controlConfig{
		dir: dir, account: "000000000000", region: "us-east-1", publicName: l.Addr().String(), domain: "localhost",
		roots: []auth.Root{{Account: "000000000000", AccessKeyID: "test", SecretAccessKey: "test"}},
		rule:  capacity.Rule{Account: "000000000000", Region: "us-east-1"}, guard: true,
		ready: func() []server.Check { return nil }, log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	control, err = newControlPlane(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- runParts(ctx, append(control.parts, part{"public port", func(ctx context.Context) error { return control.public.Run(ctx, l) }})...)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := control.waitReady(ctx, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return control, "http://" + l.Addr().String()
}

func (c errorCase) send(t *testing.T, url string) (status int, header http.Header, body string) {
	t.Helper()
	text := string(c.Body)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(c.Body, &text); err != nil {
			t.Fatal(err)
		}
	}
	method := c.Method
	if method == "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url+c.Path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.Target != "":
		r.Header.Set("X-Amz-Target", targets[c.Service]+"."+c.Target)
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	case c.Path == "":
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	c.sign(t, r, text)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(b)
}

func (c errorCase) sign(t *testing.T, r *http.Request, body string) {
	t.Helper()
	credentials, at := aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, time.Now()
	switch c.Sign {
	case "":
	case "wrong secret":
		credentials.SecretAccessKey = "guess"
	case "unknown key":
		credentials.AccessKeyID = "AKIANOBODY"
	case "an hour ago":
		at = at.Add(-time.Hour)
	case "ana":
		credentials = c.ana
	case "in an hour":
		at = at.Add(time.Hour)
	case "basic":
		r.SetBasicAuth("test", "test")
		return
	case "not at all":
		return
	default:
		t.Fatalf("sign: %q", c.Sign)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials, r, hex.EncodeToString(sum[:]), c.Service, "us-east-1", at); err != nil {
		t.Fatal(err)
	}
}

// readError finds code and message in the answer of any of the protocols.
func readError(body string) (code, message string) {
	if !strings.HasPrefix(body, "{") {
		var x struct {
			Query struct{ Code, Message string } `xml:"Error"`
			EC2   struct{ Code, Message string } `xml:"Errors>Error"`
		}
		if xml.Unmarshal([]byte(body), &x) != nil {
			return "", ""
		}
		return x.Query.Code + x.EC2.Code, x.Query.Message + x.EC2.Message
	}
	var j struct {
		Type    string `json:"__type"`
		Code    string
		Message string
		Errors  []struct{ Code, Message string } // a registry's
	}
	if json.Unmarshal([]byte(body), &j) != nil {
		return "", ""
	}
	for _, e := range j.Errors {
		return e.Code, e.Message
	}
	return j.Type + j.Code, j.Message
}
