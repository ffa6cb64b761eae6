// Package secrets resolves what containers are started with and their task definitions only name: secrets of Secrets Manager and Parameter
// Store, credentials of private registries, secret options of log drivers, files of environment variables.
//
// Invariants:
//   - Everything is read as the task's execution role, by the operations that anybody calls (api.Invoker): policies decide, and the
//     audit says who read what. Files of variables are read with the operator's credentials, once the role may s3:GetObject them.
//   - A value is in an answer to the task's agent and nowhere else: in no record, no log line and no reason of a stop.
//   - One resolution reads each secret once.
//
// It knows the families by their SDK inputs alone.
package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/firelens"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxBytes is what all containers of a task may get together: it travels in one message of the agents' protocol.
const maxBytes = 2 << 20

// Roles say who a task's role makes it; sts.Service is one.
type Roles interface {
	TaskIdentity(account, role, taskARN string) (api.Identity, error)
}

// Authorizer is asked for what is done without calling an operation.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, a api.Access) error
}

// Resolver resolves. Safe for concurrent use; it keeps nothing.
type Resolver struct {
	Roles      Roles
	Invoker    api.Invoker
	Authorizer Authorizer
	Objects    Objects // nil: files of environment variables are nowhere to be had
}

// failure ends a start, in ECS's words.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

func initialization(format string, args ...any) error {
	return failure{"ResourceInitializationError: " + fmt.Sprintf(format, args...)}
}

func retrieval(what string, err error) error {
	return initialization("unable to pull secrets or registry auth: execution resource retrieval failed: unable to %s: service call has been retried 1 time(s): %s", what, words(err))
}

// words are those of a refusal, with its code in front, as agents of ECS show them.
func words(err error) string {
	if e, ok := awserr.As(err); ok {
		return e.Code + ": " + e.Message
	}
	return err.Error()
}

// Resolve answers what the task's containers are started with, or, in the answer, why it cannot start. An error is one that passes.
func (r *Resolver) Resolve(ctx context.Context, t *controlplane.Task, d *controlplane.TaskDefinition) (*agentapi.TaskSecretsAnswer, error) {
	def, over := d.Shape(), controlplane.DecodeShape[types.TaskOverride](t.OverridesJson)
	w := &work{Resolver: r, task: t, read: map[string]string{}}
	answer, err := w.all(ctx, def, over)
	var f failure
	switch {
	case errors.As(err, &f):
		return &agentapi.TaskSecretsAnswer{Failure: f.text}, nil
	case err != nil:
		return nil, err
	}
	return answer, nil
}

// work is one resolution.
type work struct {
	*Resolver
	task *controlplane.Task
	who  api.Identity
	read map[string]string // by what was asked for
	size int
}

func (w *work) all(ctx context.Context, def types.TaskDefinition, over types.TaskOverride) (*agentapi.TaskSecretsAnswer, error) {
	_, role := controlplane.TaskRoles(w.task.Account, def, over)
	if role == "" {
		return nil, initialization("unable to pull secrets or registry auth: execution resource retrieval failed: the task has no execution role")
	}
	var err error
	if w.who, err = w.Roles.TaskIdentity(w.task.Account, role, w.task.ARN()); err != nil {
		return nil, initialization("unable to pull secrets or registry auth: execution resource retrieval failed: %s", words(err))
	}
	answer := &agentapi.TaskSecretsAnswer{}
	for _, c := range def.ContainerDefinitions {
		got, err := w.container(ctx, c, controlplane.ContainerOverride(over, aws.ToString(c.Name)))
		if err != nil {
			return nil, err
		}
		if got != nil {
			answer.Containers = append(answer.Containers, got)
		}
	}
	return answer, routeOptions(answer, def.ContainerDefinitions)
}

// routeOptions gives the secret options of those whose output goes to the task's log router to that one, as variables: its configuration
// refers to them.
func routeOptions(answer *agentapi.TaskSecretsAnswer, containers []types.ContainerDefinition) error {
	at := controlplane.LogRouter(containers)
	if at < 0 {
		return nil
	}
	of := map[string]*agentapi.ContainerSecrets{}
	for _, s := range answer.Containers {
		of[s.Name] = s
	}
	name := aws.ToString(containers[at].Name)
	for i, c := range containers {
		s := of[aws.ToString(c.Name)]
		if s == nil || !controlplane.Routed(c) || len(s.LogOptions) == 0 {
			continue
		}
		if of[name] == nil {
			of[name] = &agentapi.ContainerSecrets{Name: name, Environment: map[string]string{}}
			answer.Containers = append(answer.Containers, of[name])
		}
		for option, value := range s.LogOptions {
			if strings.ContainsRune(value, 0) {
				return initialization("unable to pull secrets or registry auth: the value of secret option %s of container %s has a zero byte, which no environment variable can have", option, s.Name)
			}
			of[name].Environment[firelens.SecretVariable(option, i)] = value
		}
		s.LogOptions = nil
	}
	return nil
}

// container is what one container gets; nil: nothing.
func (w *work) container(ctx context.Context, c types.ContainerDefinition, over types.ContainerOverride) (*agentapi.ContainerSecrets, error) {
	got := &agentapi.ContainerSecrets{Name: aws.ToString(c.Name), Environment: map[string]string{}}
	if err := w.environmentFiles(ctx, got, c, over); err != nil {
		return nil, err
	}
	if rc := c.RepositoryCredentials; rc != nil {
		if err := w.registry(ctx, got, aws.ToString(rc.CredentialsParameter)); err != nil {
			return nil, err
		}
	}
	files := controlplane.SecretFiles(c)
	for _, s := range c.Secrets {
		value, err := w.value(ctx, aws.ToString(s.ValueFrom))
		if err != nil {
			return nil, err
		}
		name := aws.ToString(s.Name)
		switch {
		case files != "" && got.Files == nil:
			got.Files = map[string][]byte{name: []byte(value)}
		case files != "":
			got.Files[name] = []byte(value)
		case strings.ContainsRune(value, 0):
			return nil, initialization("unable to pull secrets or registry auth: the value of secret %s of container %s has a zero byte, which no environment variable can have", name, got.Name)
		default:
			got.Environment[name] = value
		}
	}
	if c.LogConfiguration != nil {
		for _, s := range c.LogConfiguration.SecretOptions {
			value, err := w.value(ctx, aws.ToString(s.ValueFrom))
			if err != nil {
				return nil, err
			}
			if got.LogOptions == nil {
				got.LogOptions = map[string]string{}
			}
			got.LogOptions[aws.ToString(s.Name)] = value
		}
	}
	if len(got.Environment)+len(got.Files)+len(got.LogOptions) == 0 && got.RegistryUser == "" {
		return nil, nil
	}
	return got, nil
}

// count holds what the task gets to maxBytes.
func (w *work) count(texts ...string) error {
	for _, t := range texts {
		w.size += len(t)
	}
	if w.size > maxBytes {
		return initialization("unable to pull secrets or registry auth: the values are more than %d bytes together", maxBytes)
	}
	return nil
}

// value resolves a valueFrom.
func (w *work) value(ctx context.Context, valueFrom string) (string, error) {
	ref, err := controlplane.ParseSecretRef(valueFrom)
	if err != nil {
		return "", retrieval("retrieve secret from asm", err)
	}
	var value string
	if ref.Secret != "" {
		value, err = w.secret(ctx, ref)
	} else {
		value, err = w.parameter(ctx, ref)
	}
	if err != nil {
		return "", err
	}
	return value, w.count(value)
}

// invoke calls an operation as the execution role. Only a failure that passes is the caller's to hand on as it is.
func invoke[O any](ctx context.Context, w *work, region string, in any) (out *O, refused, passing error) {
	if region == "" {
		region = w.task.Region
	}
	out, err := api.Invoke[O](ctx, w.Invoker, w.who, region, in)
	if e, ok := awserr.As(err); ok && e.Status != 503 {
		return nil, err, nil
	}
	return out, nil, err
}

// secretText reads a secret's version once.
func (w *work) secretText(ctx context.Context, ref controlplane.SecretRef) (text string, refused, passing error) {
	asked := strings.Join([]string{ref.Secret, ref.VersionStage, ref.VersionID}, " ")
	if text, ok := w.read[asked]; ok {
		return text, nil, nil
	}
	in := &sm.GetSecretValueInput{SecretId: &ref.Secret}
	if ref.VersionStage != "" {
		in.VersionStage = &ref.VersionStage
	}
	if ref.VersionID != "" {
		in.VersionId = &ref.VersionID
	}
	out, refused, passing := invoke[sm.GetSecretValueOutput](ctx, w, ref.Region, in)
	if refused != nil || passing != nil {
		return "", refused, passing
	}
	if out.SecretString == nil {
		return "", fmt.Errorf("secret %s has a binary value; only SecretString is supported", ref.Secret), nil
	}
	w.read[asked] = *out.SecretString
	return *out.SecretString, nil, nil
}

func (w *work) secret(ctx context.Context, ref controlplane.SecretRef) (string, error) {
	const what = "retrieve secret from asm"
	text, refused, passing := w.secretText(ctx, ref)
	switch {
	case passing != nil:
		return "", passing
	case refused != nil:
		return "", retrieval(what, fmt.Errorf("failed to fetch secret %s from secrets manager: %s", ref.Secret, words(refused)))
	case ref.JSONKey == "":
		return text, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil { // whose error would quote the secret
		return "", retrieval(what, fmt.Errorf("the value of secret %s is not a JSON object, so it has no key %s", ref.Secret, ref.JSONKey))
	}
	raw, ok := members[ref.JSONKey]
	if !ok {
		return "", retrieval(what, fmt.Errorf("retrieved secret from Secrets Manager did not contain json key %s", ref.JSONKey))
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	return string(raw), nil // a number or a structure, as it is written there
}

func (w *work) parameter(ctx context.Context, ref controlplane.SecretRef) (string, error) {
	const what = "retrieve secrets from ssm"
	asked := ref.Region + " " + ref.Parameter
	if text, ok := w.read[asked]; ok {
		return text, nil
	}
	out, refused, passing := invoke[ssm.GetParametersOutput](ctx, w, ref.Region, &ssm.GetParametersInput{Names: []string{ref.Parameter}, WithDecryption: aws.Bool(true)})
	switch {
	case passing != nil:
		return "", passing
	case refused != nil:
		return "", retrieval(what, refused)
	case len(out.Parameters) == 0:
		return "", retrieval(what, fmt.Errorf("invalid ssm parameters: %s", ref.Parameter))
	}
	w.read[asked] = aws.ToString(out.Parameters[0].Value)
	return w.read[asked], nil
}

// registry reads the user and password of a private registry: the members username and password of a secret.
func (w *work) registry(ctx context.Context, got *agentapi.ContainerSecrets, secret string) error {
	const what = "get registry auth from asm"
	ref, err := controlplane.ParseSecretRef(secret)
	if err != nil || ref.Secret == "" { // the name of a secret looks like a parameter's
		ref = controlplane.SecretRef{Secret: secret}
	}
	text, refused, passing := w.secretText(ctx, ref)
	switch {
	case passing != nil:
		return passing
	case refused != nil:
		return retrieval(what, refused)
	}
	var login struct{ Username, Password string }
	if json.Unmarshal([]byte(text), &login) != nil || login.Username == "" || login.Password == "" {
		return retrieval(what, fmt.Errorf("the value of secret %s is not a JSON object with username and password", secret))
	}
	got.RegistryUser, got.RegistryPassword = login.Username, login.Password
	return w.count(login.Username, login.Password)
}

// environmentFiles reads files of variables. What the definition or the overrides set themselves wins, then the first file that has it.
func (w *work) environmentFiles(ctx context.Context, got *agentapi.ContainerSecrets, c types.ContainerDefinition, over types.ContainerOverride) error {
	own := map[string]bool{}
	for _, e := range append(c.Environment[:len(c.Environment):len(c.Environment)], over.Environment...) {
		own[aws.ToString(e.Name)] = true
	}
	for _, f := range controlplane.EnvironmentFiles(c, over) {
		vars, err := w.environmentFile(ctx, aws.ToString(f.Value))
		if err != nil {
			return err
		}
		maps.DeleteFunc(vars, func(name, _ string) bool { _, earlier := got.Environment[name]; return earlier || own[name] })
		maps.Copy(got.Environment, vars)
	}
	return nil
}
