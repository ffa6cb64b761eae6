package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// reader makes an execution role that may pull images and do what the statements say, with the AWS CLI, and returns its ARN.
func (p *platform) reader(name string, statements ...string) string {
	p.t.Helper()
	arn := p.text("Role.Arn", "iam", "create-role", "--role-name", name, "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}}`)
	statements = append(statements, `{"Effect":"Allow","Action":["ecr:GetAuthorizationToken","ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"],"Resource":"*"}`)
	p.aws(nil, "iam", "put-role-policy", "--role-name", name, "--policy-name", "may", "--policy-document", `{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`)
	return arn
}

type object = map[string]any

// define registers a task definition with the AWS CLI.
func (p *platform) define(family, role string, container object) {
	p.t.Helper()
	container["name"], container["memory"] = "main", 64
	text, err := json.Marshal(object{"family": family, "executionRoleArn": role, "containerDefinitions": []object{container}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.aws(nil, "ecs", "register-task-definition", "--cli-input-json", string(text))
}

// ended waits until a task has stopped, and says how.
func (p *platform) ended(task string) (reason, code, exit string) {
	p.t.Helper()
	eventually(p.t, 2*time.Minute, "the end of the task", func() (bool, string) {
		got := strings.Split(p.text("tasks[0].[lastStatus,stoppedReason,stopCode,containers[0].exitCode]", "ecs", "describe-tasks", "--tasks", task), "\t")
		if len(got) == 4 {
			reason, code, exit = got[1], got[2], got[3]
		}
		return got[0] == "STOPPED", strings.Join(got, " ")
	})
	return reason, code, exit
}

// printed is what a task has written once it has stopped.
func (p *platform) printed(family string) string {
	p.t.Helper()
	task := p.runTask(family)
	if reason, _, exit := p.ended(task); exit != "0" {
		p.t.Errorf("%s ended with %s: %s", family, exit, reason)
	}
	out, errs, err := p.neargate("logs", task[strings.LastIndexByte(task, '/')+1:])
	if err != nil {
		p.t.Fatalf("neargate logs: %v\n%s", err, errs)
	}
	return out
}

// nowhere wants a word in no file of the data directory and not in what the platform has written.
func (p *platform) nowhere(word string) {
	p.t.Helper()
	if strings.Contains(p.out.String(), word) {
		p.t.Errorf("%s is in the platform's log", word)
	}
	files := 0
	err := filepath.WalkDir(p.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // what goes away meanwhile
		}
		if b, err := os.ReadFile(path); err == nil {
			files++
			if bytes.Contains(b, []byte(word)) {
				p.t.Errorf("%s is in %s", word, path)
			}
		}
		return nil
	})
	if err != nil || files < 5 {
		p.t.Errorf("looked into %d files, %v", files, err)
	}
}

func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// TestSecretsReachTasks: secrets and parameters that the AWS CLI made reach containers, as variables and as files, and nothing else.
func TestSecretsReachTasks(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startWith(t, "native", []string{"--verbose"})
	shell := p.pushShell()
	role := p.reader("reader", `{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"arn:aws:secretsmanager:*:*:secret:app/*"}`,
		`{"Effect":"Allow","Action":"ssm:GetParameters","Resource":"arn:aws:ssm:*:*:parameter/app/*"}`)
	first := p.text("[ARN,VersionId]", "secretsmanager", "create-secret", "--name", "app/db", "--secret-string", `{"password":"canary-first"}`)
	secret, version, _ := strings.Cut(first, "\t")
	const now = `{"password":"canary-now","port":5432,"tls":{"on":true}}`
	p.aws(nil, "secretsmanager", "put-secret-value", "--secret-id", "app/db", "--secret-string", now)
	hidden := p.text("ARN", "secretsmanager", "create-secret", "--name", "other/db", "--secret-string", "canary-hidden")
	p.aws(nil, "ssm", "put-parameter", "--name", "/app/key", "--type", "SecureString", "--value", "canary-parameter")
	p.aws(nil, "ssm", "put-parameter", "--name", "/app/list", "--type", "StringList", "--value", "canary-a,canary-b")

	from := map[string]struct{ valueFrom, value string }{
		"ALL":       {secret, now},
		"PARTIAL":   {secret[:len(secret)-7], now},
		"PASSWORD":  {secret + ":password::", "canary-now"},
		"PORT":      {secret + ":port::", "5432"},
		"TLS":       {secret + ":tls::", `{"on":true}`},
		"PREVIOUS":  {secret + ":password:AWSPREVIOUS:", "canary-first"},
		"VERSION":   {secret + ":password::" + version, "canary-first"},
		"PARAMETER": {"/app/key", "canary-parameter"},
		"LIST":      {"arn:aws:ssm:us-east-1:000000000000:parameter/app/list", "canary-a,canary-b"},
	}
	var secrets []object
	script := "" // which shows hashes: what a container prints is on the disk
	for name, s := range from {
		secrets = append(secrets, object{"name": name, "valueFrom": s.valueFrom})
		script += fmt.Sprintf(`echo %s $(echo -n "$%s" | busybox sha256sum);`, name, name)
	}
	p.define("variables", role, object{"image": shell, "secrets": secrets, "environment": []object{{"name": "PLAIN", "value": "p"}}, "command": []string{script}})
	out := p.printed("variables")
	for name, s := range from {
		if want := name + " " + sum(s.value); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	const files = "busybox stat -c '%a %u %n' /run/secrets /run/secrets/*; busybox sha256sum /run/secrets/PASSWORD; busybox env; busybox grep /run/secrets /proc/mounts; (echo x > /run/secrets/PASSWORD) 2>&1"
	p.define("files", role, object{"image": shell, "user": "1000:1000", "dockerLabels": object{"neargate.secrets.files": "/run/secrets"},
		"secrets": []object{{"name": "PASSWORD", "valueFrom": secret + ":password::"}, {"name": "app.conf", "valueFrom": "/app/key"}}, "command": []string{files + "; true"}})
	out = p.printed("files")
	for _, want := range []string{"500 1000 /run/secrets\n", "400 1000 /run/secrets/PASSWORD\n", "400 1000 /run/secrets/app.conf\n", sum("canary-now"), "secrets /run/secrets tmpfs ro,", "can't create /run/secrets/PASSWORD"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "PASSWORD=") {
		t.Error("a secret that is a file is a variable as well")
	}

	stranger := p.reader("stranger")
	const failed = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to "
	for family, c := range map[string]struct{ role, valueFrom, reason string }{
		"denied":           {stranger, secret, failed + "retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret " + secret + " from secrets manager: AccessDeniedException: "},
		"elsewhere":        {role, hidden, failed + "retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret " + hidden + " from secrets manager: AccessDeniedException: "},
		"no-key":           {role, secret + ":nope::", failed + "retrieve secret from asm: service call has been retried 1 time(s): retrieved secret from Secrets Manager did not contain json key nope"},
		"no-version":       {role, secret + ":::00000000-0000-0000-0000-000000000000", failed + "retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret " + secret + " from secrets manager: ResourceNotFoundException: "},
		"no-parameter":     {role, "/app/nope", failed + "retrieve secrets from ssm: service call has been retried 1 time(s): invalid ssm parameters: /app/nope"},
		"denied-parameter": {stranger, "/app/key", failed + "retrieve secrets from ssm: service call has been retried 1 time(s): AccessDeniedException: "},
	} {
		p.define(family, c.role, object{"image": shell, "secrets": []object{{"name": "S", "valueFrom": c.valueFrom}}, "command": []string{"true"}})
		reason, code, _ := p.ended(p.runTask(family))
		if !strings.HasPrefix(reason, c.reason) || code != "TaskFailedToStart" || strings.Contains(reason, "canary") {
			t.Errorf("%s: %s: %s", family, code, reason)
		}
	}

	// What runs goes on without the platform, and what it has is not read again.
	p.define("lasting", role, object{"image": shell, "secrets": []object{{"name": "S", "valueFrom": secret + ":password::"}},
		"command": []string{`while :; do echo $(echo -n "$S" | busybox sha256sum); busybox sleep 1; done`}})
	task := p.runTask("lasting")
	running := func() (bool, string) {
		got := p.text("tasks[0].lastStatus", "ecs", "describe-tasks", "--tasks", task)
		return got == "RUNNING", got
	}
	eventually(t, time.Minute, "the task runs", running)
	p.cmd.Process.Kill()
	<-p.done
	p.run()
	p.aws(nil, "secretsmanager", "put-secret-value", "--secret-id", "app/db", "--secret-string", `{"password":"canary-later"}`)
	eventually(t, time.Minute, "the task runs after the platform was killed", running)
	if got := p.text("SecretString", "secretsmanager", "get-secret-value", "--secret-id", "app/db"); !strings.Contains(got, "canary-later") {
		t.Errorf("the secret is %s", got)
	}
	eventually(t, time.Minute, "what it prints", func() (bool, string) {
		out, errs, err := p.neargate("logs", task[strings.LastIndexByte(task, '/')+1:], "--tail", "1")
		return err == nil && strings.Contains(out, sum("canary-now")), fmt.Sprintf("%s%s (%v)", out, errs, err)
	})
	p.nowhere("canary")
}

// TestSnapshotKeepsSecrets: a saved state has them, sealed.
func TestSnapshotKeepsSecrets(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	p.aws(nil, "secretsmanager", "create-secret", "--name", "s", "--secret-string", "canary-saved")
	p.aws(nil, "ssm", "put-parameter", "--name", "p", "--type", "SecureString", "--value", "canary-saved")
	saved := filepath.Join(p.data, "saved")
	if out, errs, err := p.neargate("operator", "snapshot", "save", saved); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	p.nowhere("canary") // the file is there too
	p.aws(nil, "secretsmanager", "delete-secret", "--secret-id", "s", "--force-delete-without-recovery")
	p.aws(nil, "ssm", "delete-parameter", "--name", "p")
	if out, errs, err := p.neargate("operator", "snapshot", "restore", saved); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	if got := p.text("SecretString", "secretsmanager", "get-secret-value", "--secret-id", "s"); got != "canary-saved" {
		t.Errorf("the secret is %s", got)
	}
	if got := p.text("Parameter.Value", "ssm", "get-parameter", "--name", "p", "--with-decryption"); got != "canary-saved" {
		t.Errorf("the parameter is %s", got)
	}
}

// TestBoto3Secrets has boto3 use both services, which needs no containers: testdata/boto3_secrets.py.
func TestBoto3Secrets(t *testing.T) {
	t.Parallel()
	needsBoto3(t, "secretsmanager", "batch_get_secret_value")
	startOn(t, "fake").python("boto3_secrets.py")
}

// TestPrivateRegistry: an image comes from a registry that wants a password, which is in a secret.
func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
	}
	p := start(t)
	registry := ocitest.New(t)
	registry.Cred = ociclient.Credentials{User: "puller", Password: "canary-registry"}
	image := registry.Push(t, "private:1", ocitest.Image(t, ociclient.Config{Entrypoint: []string{"/bin/sh", "-c"}}, []ociclient.File{
		ociclient.Executable("bin/sh", busybox), ociclient.Executable("bin/busybox", busybox)}))
	role := p.reader("puller", `{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*"}`)
	secret := p.text("ARN", "secretsmanager", "create-secret", "--name", "registry", "--secret-string", `{"username":"puller","password":"canary-registry"}`)
	p.aws(nil, "secretsmanager", "create-secret", "--name", "wrong", "--secret-string", `{"user":"puller","password":"canary-registry"}`)
	with := func(secret string) object {
		return object{"image": image, "repositoryCredentials": object{"credentialsParameter": secret}, "command": []string{"echo pulled"}}
	}
	p.define("private", role, with(secret))
	if out := p.printed("private"); !strings.Contains(out, "pulled") {
		t.Errorf("printed %s", out)
	}
	p.define("wrong", role, with("wrong"))
	if reason, _, _ := p.ended(p.runTask("wrong")); !strings.Contains(reason, "get registry auth from asm") || !strings.Contains(reason, "username and password") {
		t.Errorf("stopped because %s", reason)
	}
	p.nowhere("canary")
}

// TestTaskIsStartedWithFilesOfVariables: files of variables come from the store that the operator names, if the role may read them.
func TestTaskIsStartedWithFilesOfVariables(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=STOREKEY/") || !strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/s3/aws4_request") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		switch r.URL.EscapedPath() {
		case "/bucket/a%20b.env":
			fmt.Fprint(w, "# a comment\nFIRST=one = 1\nSHARED=\"a\"\n\nEMPTY=\nNOTHING\nOWN=file\n")
		case "/bucket/b.env":
			fmt.Fprint(w, "SHARED=b\r\nSECOND=$FIRST\r\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(store.Close)
	p := startWith(t, "native", []string{"--s3-endpoint", store.URL, "--s3-region", "eu-north-1"}, "NEARGATE_S3_ACCESS_KEY_ID=STOREKEY", "NEARGATE_S3_SECRET_ACCESS_KEY=store-secret")
	shell := p.pushShell()
	role := p.reader("files", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}`)
	file := func(key string) object { return object{"type": "s3", "value": "arn:aws:s3:::" + key} }
	const show = "busybox env | busybox sort"
	p.define("both", role, object{"image": shell, "environmentFiles": []object{file("bucket/a b.env"), file("bucket/b.env")},
		"environment": []object{{"name": "OWN", "value": "definition"}}, "command": []string{show}})
	out := p.printed("both")
	for _, want := range []string{"FIRST=one = 1\n", "SHARED=\"a\"\n", "SECOND=$FIRST\n", "OWN=definition\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "EMPTY") || strings.Contains(out, "NOTHING") {
		t.Errorf("lines that set nothing have set something:\n%s", out)
	}
	for family, c := range map[string]struct{ key, reason string }{
		"missing":   {"bucket/none.env", "ResourceInitializationError: failed to download env files: arn:aws:s3:::bucket/none.env: the S3 endpoint answered 404 Not Found"},
		"forbidden": {"other/a.env", "ResourceInitializationError: failed to download env files: arn:aws:s3:::other/a.env: AccessDenied: "},
	} {
		p.define(family, role, object{"image": shell, "environmentFiles": []object{file(c.key)}, "command": []string{show}})
		if reason, code, _ := p.ended(p.runTask(family)); !strings.HasPrefix(reason, c.reason) || code != "TaskFailedToStart" {
			t.Errorf("%s: %s: %s", family, code, reason)
		}
	}
}

// TestNoStoreForFilesOfVariables: the reason names the flag.
func TestNoStoreForFilesOfVariables(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startOn(t, "fake")
	role := p.reader("files", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}`)
	p.define("f", role, object{"image": "web:1", "environmentFiles": []object{{"type": "s3", "value": "arn:aws:s3:::bucket/a.env"}}})
	if reason, _, _ := p.ended(p.runTask("f")); !strings.HasPrefix(reason, "ResourceInitializationError: ") || !strings.Contains(reason, "--s3-endpoint") {
		t.Errorf("stopped because %s", reason)
	}
}
