package secrets

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

const (
	account = "000000000000"
	secret  = "arn:aws:secretsmanager:us-east-1:" + account + ":secret:db-abcdef"
)

// platform has one role, one secret and one parameter, and counts who asks.
type platform struct {
	calls   int
	regions map[string]bool
	text    *string // of the secret
	err     error
	role    error
	objects map[string]string
}

func (p *platform) TaskIdentity(account, role, task string) (api.Identity, error) {
	return api.Identity{Account: account, ARN: role}, p.role
}

func (p *platform) Authorize(_ context.Context, c *api.Call, a api.Access) error {
	if a.Action != "s3:GetObject" || !strings.HasPrefix(a.Resources[0], "arn:aws:s3:::mine/") || c.ARN == "" {
		return errors.New("not authorized")
	}
	return nil
}

func (p *platform) Get(_ context.Context, bucket, key string, most int64) ([]byte, error) {
	if text, ok := p.objects[bucket+"/"+key]; ok {
		return []byte(text), nil
	}
	return nil, errors.New("the S3 endpoint answered 404 Not Found")
}

func (p *platform) Invoke(_ context.Context, who api.Identity, region string, in any) (any, error) {
	p.calls++
	p.regions[region] = true
	switch {
	case p.err != nil:
		return nil, p.err
	case who.ARN != "arn:aws:iam::"+account+":role/r":
		return nil, awserr.New("AccessDeniedException", "not %s", who.ARN)
	}
	switch in := in.(type) {
	case *sm.GetSecretValueInput:
		if *in.SecretId != secret && *in.SecretId != "db" || in.VersionStage != nil && *in.VersionStage != "AWSPREVIOUS" {
			return nil, awserr.New("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
		}
		return &sm.GetSecretValueOutput{SecretString: p.text}, nil
	case *ssm.GetParametersInput:
		if in.Names[0] != "/p" || !*in.WithDecryption {
			return &ssm.GetParametersOutput{InvalidParameters: in.Names}, nil
		}
		return &ssm.GetParametersOutput{Parameters: []ssmtypes.Parameter{{Value: aws.String("canary-p")}}}, nil
	}
	return nil, errors.New("unknown operation")
}

func newPlatform() *platform {
	return &platform{regions: map[string]bool{}, text: aws.String(`{"username":"u","password":"canary","n":12345678901234567890,"list":[1, 2]}`), objects: map[string]string{}}
}

// resolve resolves for one container, whose definition change completes.
func (p *platform) resolve(t *testing.T, change func(*types.ContainerDefinition), over ...types.TaskOverride) (map[string]string, *resolved) {
	t.Helper()
	c := types.ContainerDefinition{Name: aws.String("c")}
	change(&c)
	d := &controlplane.TaskDefinition{Account: account, Family: "f",
		DefinitionJson: []byte(controlplane.EncodeShape(types.TaskDefinition{ExecutionRoleArn: aws.String("r"), ContainerDefinitions: []types.ContainerDefinition{c}}))}
	task := &controlplane.Task{Account: account, Region: "us-east-1", Cluster: "default", Id: "t"}
	for _, o := range over {
		task.OverridesJson = controlplane.EncodeShape(o)
	}
	r := &Resolver{Roles: p, Invoker: p, Authorizer: p, Objects: p}
	a, err := r.Resolve(t.Context(), task, d)
	if err != nil {
		return nil, &resolved{err: err}
	}
	if strings.Contains(a.Failure, "canary") {
		t.Errorf("a reason has a value in it: %s", a.Failure)
	}
	out := &resolved{failure: a.Failure}
	if len(a.Containers) == 0 {
		return nil, out
	}
	got := a.Containers[0]
	out.files, out.user, out.password, out.options = got.Files, got.RegistryUser, got.RegistryPassword, got.LogOptions
	return got.Environment, out
}

type resolved struct {
	files          map[string][]byte
	user, password string
	options        map[string]string
	failure        string
	err            error
}

func secrets(from ...string) []types.Secret {
	var list []types.Secret
	for _, f := range from {
		name, valueFrom, _ := strings.Cut(f, "=")
		list = append(list, types.Secret{Name: &name, ValueFrom: &valueFrom})
	}
	return list
}

func TestValuesAreReadOnce(t *testing.T) {
	p := newPlatform()
	env, out := p.resolve(t, func(c *types.ContainerDefinition) {
		c.Secrets = secrets("ALL="+secret, "PASSWORD="+secret+":password::", "N="+secret+":n::", "LIST="+secret+":list::", "OLD="+secret+":password:AWSPREVIOUS:", "P=/p", "P2=/p")
		c.LogConfiguration = &types.LogConfiguration{LogDriver: "splunk", SecretOptions: secrets("token=/p")}
		c.RepositoryCredentials = &types.RepositoryCredentials{CredentialsParameter: aws.String(secret)}
	})
	want := map[string]string{"ALL": *p.text, "PASSWORD": "canary", "N": "12345678901234567890", "LIST": "[1, 2]", "OLD": "canary", "P": "canary-p", "P2": "canary-p"}
	if !maps.Equal(env, want) || out.options["token"] != "canary-p" || out.user != "u" || out.password != "canary" {
		t.Errorf("got %v, %+v", env, out)
	}
	if p.calls != 3 {
		t.Errorf("%d calls, want one for each version of the secret and one for the parameter", p.calls)
	}
	_, out = p.resolve(t, func(c *types.ContainerDefinition) {
		c.DockerLabels = map[string]string{controlplane.SecretFilesLabel: "/run/secrets"}
		c.Secrets = secrets("F=/p")
	})
	if string(out.files["F"]) != "canary-p" {
		t.Errorf("files %v", out.files)
	}
	if env, out := p.resolve(t, func(*types.ContainerDefinition) {}); env != nil || out.failure != "" {
		t.Errorf("of nothing: %v, %+v", env, out)
	}
	// Another region's.
	p.resolve(t, func(c *types.ContainerDefinition) {
		c.Secrets = secrets("S=" + strings.Replace(secret, "us-east-1", "eu-west-1", 1))
	})
	if !p.regions["eu-west-1"] {
		t.Errorf("asked in %v", p.regions)
	}
}

func TestFailuresSayWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*platform)
		secret string
		reason string
	}{
		"denied":       {func(p *platform) { p.err = awserr.New("AccessDeniedException", "User: x is not authorized") }, "S=" + secret, "unable to retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret " + secret + " from secrets manager: AccessDeniedException: User: x is not authorized"},
		"no role":      {func(p *platform) { p.role = awserr.New("ClientException", "ECS was unable to assume the role") }, "S=" + secret, "execution resource retrieval failed: ClientException: ECS was unable to assume the role"},
		"stage":        {nil, "S=" + secret + "::NOPE:", "ResourceNotFoundException: "},
		"key":          {nil, "S=" + secret + ":nope::", "did not contain json key nope"},
		"not JSON":     {func(p *platform) { p.text = aws.String("canary") }, "S=" + secret + ":k::", "is not a JSON object, so it has no key k"},
		"binary":       {func(p *platform) { p.text = nil }, "S=" + secret, "binary value"},
		"zero byte":    {func(p *platform) { p.text = aws.String("canary\x00") }, "S=" + secret, "zero byte"},
		"no parameter": {nil, "S=/q", "unable to retrieve secrets from ssm: service call has been retried 1 time(s): invalid ssm parameters: /q"},
		"too much":     {func(p *platform) { p.text = aws.String(strings.Repeat("canary", maxBytes/6+1)) }, "S=" + secret, "more than 2097152 bytes"},
		"internal":     {func(p *platform) { p.err = awserr.WithStatus(500, "InternalFailure", "see the log") }, "S=" + secret, "InternalFailure: see the log"},
	} {
		p := newPlatform()
		if c.change != nil {
			c.change(p)
		}
		env, out := p.resolve(t, func(d *types.ContainerDefinition) { d.Secrets = secrets(c.secret) })
		if env != nil || !strings.HasPrefix(out.failure, "ResourceInitializationError: ") || !strings.Contains(out.failure, c.reason) {
			t.Errorf("%s: %v %s", name, out.err, out.failure)
		}
	}
	p := newPlatform()
	p.err = awserr.WithStatus(503, "ServiceUnavailable", "no leader")
	if _, out := p.resolve(t, func(d *types.ContainerDefinition) { d.Secrets = secrets("S=/p") }); out.err == nil {
		t.Errorf("what passes is an end: %s", out.failure)
	}
	p = newPlatform()
	p.text = aws.String(`{"user":"u","password":"canary"}`)
	if _, out := p.resolve(t, func(d *types.ContainerDefinition) {
		d.RepositoryCredentials = &types.RepositoryCredentials{CredentialsParameter: aws.String("db")}
	}); !strings.Contains(out.failure, "unable to get registry auth from asm") || !strings.Contains(out.failure, "username and password") {
		t.Errorf("registry: %s", out.failure)
	}
}

func TestFilesOfVariables(t *testing.T) {
	p := newPlatform()
	p.objects = map[string]string{"mine/a.env": "A=a\nBOTH=first\nOWN=file\nOVER=file\n", "mine/b.env": "B=b\nBOTH=second\nA S = x \n", "mine/bad.env": "A=\xff\n", "mine/c.env": "C=c"}
	files := func(keys ...string) (list []types.EnvironmentFile) {
		for _, k := range keys {
			list = append(list, types.EnvironmentFile{Type: "s3", Value: aws.String("arn:aws:s3:::" + k)})
		}
		return list
	}
	both := func(c *types.ContainerDefinition) {
		c.EnvironmentFiles = files("mine/a.env", "mine/b.env")
		c.Environment = []types.KeyValuePair{{Name: aws.String("OWN"), Value: aws.String("definition")}}
		c.Secrets = secrets("B=/p")
	}
	over := types.ContainerOverride{Name: aws.String("c"), Environment: []types.KeyValuePair{{Name: aws.String("OVER"), Value: aws.String("override")}}}
	env, out := p.resolve(t, both, types.TaskOverride{ContainerOverrides: []types.ContainerOverride{over}})
	if want := map[string]string{"A": "a", "BOTH": "first", "A S ": " x ", "B": "canary-p"}; !maps.Equal(env, want) {
		t.Errorf("got %v (%s), want %v", env, out.failure, want)
	}
	over.EnvironmentFiles = files("mine/c.env")
	env, _ = p.resolve(t, both, types.TaskOverride{ContainerOverrides: []types.ContainerOverride{over}})
	if want := map[string]string{"C": "c", "B": "canary-p"}; !maps.Equal(env, want) {
		t.Errorf("with the override's files: %v, want %v", env, want)
	}
	for key, reason := range map[string]string{"mine/none.env": "the S3 endpoint answered 404 Not Found", "yours/a.env": "AccessDenied: not authorized", "mine/bad.env": "it is not text in UTF-8"} {
		_, out := p.resolve(t, func(c *types.ContainerDefinition) { c.EnvironmentFiles = files(key) })
		if want := "ResourceInitializationError: failed to download env files: arn:aws:s3:::" + key + ": " + reason; out.failure != want {
			t.Errorf("%s: %s, want %s", key, out.failure, want)
		}
	}
}

// TestS3: the bucket is in the path, the request is signed for the store's region, and what is not the object is no value.
func TestS3(t *testing.T) {
	const id, key = "AKIASTORE", "store-secret"
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.Contains(r.Header.Get("Authorization"), "Credential="+id+"/20260102/eu-north-1/s3/aws4_request"):
			http.Error(w, "signature", http.StatusForbidden)
		case r.URL.EscapedPath() == "/below/bucket/a%20%2Bb/c.env":
			w.Write([]byte("A=a"))
		case r.URL.Path == "/below/bucket/long":
			w.Write(make([]byte, 11))
		case r.URL.Path == "/below/bucket/moved":
			http.Redirect(w, r, "/below/bucket/long", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(store.Close)
	u, err := url.Parse(store.URL + "/below/")
	if err != nil {
		t.Fatal(err)
	}
	s := &S3{Endpoint: u, Region: "eu-north-1", AccessKeyID: id, SecretAccessKey: key, Clock: clock.NewFake(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))}
	if b, err := s.Get(t.Context(), "bucket", "a +b/c.env", 10); err != nil || string(b) != "A=a" {
		t.Errorf("got %q, %v", b, err)
	}
	for k, want := range map[string]string{"none": "404 Not Found", "long": "longer than 10 bytes", "moved": "302 Found"} {
		if _, err := s.Get(t.Context(), "bucket", k, 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", k, err, want)
		}
	}
	store.Close()
	if _, err := s.Get(t.Context(), "bucket", "c.env", 10); err == nil || strings.Contains(err.Error(), "http://") {
		t.Errorf("a store that is down: %v", err)
	}
}

// TestSecretOptionsOfRoutedLogs: they go to the log router, as variables that say of which container they are.
func TestSecretOptionsOfRoutedLogs(t *testing.T) {
	p := newPlatform()
	log := &types.LogConfiguration{LogDriver: types.LogDriverAwsfirelens, SecretOptions: secrets("token=/p")}
	d := &controlplane.TaskDefinition{Account: account, Family: "f", DefinitionJson: []byte(controlplane.EncodeShape(types.TaskDefinition{
		ExecutionRoleArn: aws.String("r"), ContainerDefinitions: []types.ContainerDefinition{
			{Name: aws.String("a"), LogConfiguration: log},
			{Name: aws.String("router"), FirelensConfiguration: &types.FirelensConfiguration{Type: types.FirelensConfigurationTypeFluentbit}},
			{Name: aws.String("b"), LogConfiguration: log, Secrets: secrets("OWN=/p")},
		}}))}
	r := &Resolver{Roles: p, Invoker: p, Authorizer: p, Objects: p}
	answer, err := r.Resolve(t.Context(), &controlplane.Task{Account: account, Region: "us-east-1", Cluster: "default", Id: "t"}, d)
	if err != nil || answer.Failure != "" {
		t.Fatal(answer.GetFailure(), err)
	}
	got := map[string]map[string]string{}
	for _, c := range answer.Containers {
		if len(c.LogOptions) > 0 {
			t.Errorf("container %s has options of its own", c.Name)
		}
		got[c.Name] = c.Environment
	}
	if want := map[string]string{"token_0": "canary-p", "token_2": "canary-p"}; !maps.Equal(got["router"], want) {
		t.Errorf("the router has %v, want %v", got["router"], want)
	}
	if len(got["a"]) != 0 || !maps.Equal(got["b"], map[string]string{"OWN": "canary-p"}) {
		t.Errorf("the others have %v", got)
	}
}
