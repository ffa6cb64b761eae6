package sts

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Limits of the STS API reference. The shortest duration is the model's.
const (
	defaultRoleSession = time.Hour
	maxChainedSession  = time.Hour
	defaultUserSession = 12 * time.Hour
	maxRootSession     = time.Hour
	maxSessionPolicies = 10
	maxPolicyText      = 2048 // characters of inline session policy and ARNs together
	maxPacked          = 4096 // bytes of policies and tags, of which PackedPolicySize is a percentage
)

var tagCodes = controlplane.TagCodes{TooMany: "InvalidParameterValue", Duplicate: "InvalidParameterValue", Invalid: "InvalidParameterValue"}

func validation(format string, args ...any) error {
	return awserr.WithStatus(400, "ValidationError", format, args...)
}

func accessDenied(format string, args ...any) error {
	return awserr.WithStatus(403, "AccessDenied", format, args...)
}

// assumeRole implements sts:AssumeRole. That the caller may was decided before, but for root, who must not.
func (s *Service) assumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	c, name := api.CallFrom(ctx), aws.ToString(in.RoleArn)
	if in.SerialNumber != nil || in.TokenCode != nil {
		return nil, accessDenied("MultiFactorAuthentication failed, there are no MFA devices")
	}
	if len(in.ProvidedContexts) > 0 {
		return nil, validation("ProvidedContexts is not supported.")
	}
	if c.Root {
		return nil, accessDenied("Roles may not be assumed by root accounts.")
	}
	id, most, ok := s.Roles.Role(name)
	if !ok { // it went since
		return nil, accessDenied("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.ARN, name)
	}
	length, err := roleSession(c, in.DurationSeconds, most)
	if err != nil {
		return nil, err
	}
	now := s.Clock.Now().UTC().Truncate(time.Second)
	session := &api.Session{Role: name, Name: aws.ToString(in.RoleSessionName), Issued: now, Expires: now.Add(length), SourceIdentity: aws.ToString(in.SourceIdentity)}
	if err := s.limit(session, in); err != nil {
		return nil, err
	}
	if err := s.inherit(ctx, session, in); err != nil {
		return nil, err
	}
	size := packed(session)
	if size > maxPacked {
		return nil, awserr.New("PackedPolicyTooLarge", "Packed size of session policies and tags is %d%% of the limit", size*100/maxPacked)
	}
	cred := s.Sessions.Begin(roleIdentity(name, id, session))
	return &sts.AssumeRoleOutput{Credentials: credentials(cred), SourceIdentity: in.SourceIdentity,
		AssumedRoleUser:  &types.AssumedRoleUser{Arn: &cred.Identity.ARN, AssumedRoleId: &cred.Identity.UserID},
		PackedPolicySize: packedPercent(size)}, nil
}

// packedPercent is absent when there is nothing to pack, and otherwise at least one.
func packedPercent(size int) *int32 {
	if size == 0 {
		return nil
	}
	return new(int32(max(1, size*100/maxPacked)))
}

// roleIdentity is who calls with a role's session: arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION. The role's path is not in it.
func roleIdentity(role, id string, session *api.Session) api.Identity {
	a, err := arn.Parse(role)
	if err != nil {
		panic(err) // it was found by this ARN
	}
	short := role[strings.LastIndexByte(role, '/')+1:]
	return api.Identity{Account: a.Account, ARN: arn.New("sts", "", a.Account, "assumed-role/"+short+"/"+session.Name).String(),
		UserID: id + ":" + session.Name, Session: session}
}

func roleSession(c *api.Call, asked *int32, most time.Duration) (time.Duration, error) {
	length := defaultRoleSession
	if asked != nil {
		length = time.Duration(*asked) * time.Second
	}
	if c.Session != nil && c.Session.Role != "" && length > maxChainedSession {
		return 0, validation("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	if length > most {
		return 0, validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return length, nil
}

// limit takes over the session policies.
func (s *Service) limit(session *api.Session, in *sts.AssumeRoleInput) error {
	text := aws.ToString(in.Policy)
	total := utf8.RuneCountInString(text)
	if in.Policy != nil {
		if _, err := policy.Parse(policy.Identity, text); err != nil {
			return awserr.New("MalformedPolicyDocument", "%s", err.Error())
		}
		session.Policies = []string{text}
	}
	if len(in.PolicyArns) > maxSessionPolicies {
		return validation("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to %d", maxSessionPolicies)
	}
	a, _ := arn.Parse(session.Role)
	for _, p := range in.PolicyArns {
		named := aws.ToString(p.Arn)
		if !s.Roles.PolicyExists(a.Account, named) {
			return awserr.New("MalformedPolicyDocument", "The policy %s does not exist or is not attachable.", named)
		}
		session.PolicyARNs = append(session.PolicyARNs, named)
		total += utf8.RuneCountInString(named)
	}
	if total > maxPolicyText {
		return awserr.New("PackedPolicyTooLarge", "The session policy and the ARNs of managed session policies have %d characters together; %d are allowed", total, maxPolicyText)
	}
	return nil
}

// inherit takes over tags and source identity, which need permissions of their own, and what the caller's own session passes on.
func (s *Service) inherit(ctx context.Context, session *api.Session, in *sts.AssumeRoleInput) error {
	c := api.CallFrom(ctx)
	var list []controlplane.Tag
	for _, t := range in.Tags {
		list = append(list, controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)})
	}
	tags, err := controlplane.TagSet(list, tagCodes)
	if err != nil {
		return err
	}
	key := func(key string) ([]string, bool) {
		if v := map[string][]string{"sts:transitivetagkeys": in.TransitiveTagKeys, "sts:sourceidentity": given(in.SourceIdentity),
			"sts:externalid": given(in.ExternalId), "sts:rolesessionname": given(in.RoleSessionName)}[key]; v != nil {
			return v, true
		}
		return nil, false
	}
	need := func(action string) error {
		return s.Authorizer.Authorize(ctx, c, api.Access{Action: action, Resources: []string{session.Role}, Key: key, Input: in})
	}
	if len(tags) > 0 || len(in.TransitiveTagKeys) > 0 {
		if err := need("sts:TagSession"); err != nil {
			return err
		}
	}
	for _, k := range in.TransitiveTagKeys {
		if _, ok := tags[k]; !ok {
			return awserr.WithStatus(400, "InvalidParameterValue", "The transitive tag key %s is not among the session tags.", k)
		}
	}
	session.Tags, session.Transitive = tags, in.TransitiveTagKeys
	if from := c.Session; from != nil {
		for _, k := range from.Transitive {
			if _, ok := tags[k]; ok {
				return awserr.WithStatus(400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
			}
			tags[k] = from.Tags[k]
		}
		session.Transitive = slices.Concat(session.Transitive, from.Transitive)
		if from.SourceIdentity != "" {
			if session.SourceIdentity != "" && session.SourceIdentity != from.SourceIdentity {
				return accessDenied("The source identity of the calling session cannot be changed.")
			}
			session.SourceIdentity = from.SourceIdentity
		}
	}
	if session.SourceIdentity != "" {
		return need("sts:SetSourceIdentity")
	}
	return nil
}

func packed(s *api.Session) int {
	n := 0
	for _, p := range slices.Concat(s.Policies, s.PolicyARNs) {
		n += len(p)
	}
	for _, k := range slices.Collect(maps.Keys(s.Tags)) {
		n += len(k) + len(s.Tags[k])
	}
	return n
}

func credentials(c api.Credential) *types.Credentials {
	return &types.Credentials{AccessKeyId: &c.Identity.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.SessionToken, Expiration: &c.Expires}
}

// getSessionToken implements sts:GetSessionToken: temporary credentials of the user, or of root, itself.
func (s *Service) getSessionToken(ctx context.Context, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	c := api.CallFrom(ctx)
	if in.SerialNumber != nil || in.TokenCode != nil {
		return nil, accessDenied("MultiFactorAuthentication failed, there are no MFA devices")
	}
	if c.Session != nil {
		return nil, accessDenied("Cannot call GetSessionToken with session credentials")
	}
	length := defaultUserSession
	if in.DurationSeconds != nil {
		length = time.Duration(*in.DurationSeconds) * time.Second
	}
	if c.Root {
		length = min(length, maxRootSession)
	}
	now := s.Clock.Now().UTC().Truncate(time.Second)
	who := c.Identity
	who.Session = &api.Session{Issued: now, Expires: now.Add(length)}
	return &sts.GetSessionTokenOutput{Credentials: credentials(s.Sessions.Begin(who))}, nil
}

// taskSession is how long a task's credentials last; its agent asks again in time.
const taskSession = 6 * time.Hour

// TaskService is who assumes a task's role.
const TaskService = "ecs-tasks.amazonaws.com"

// TaskIdentity is who a role makes of a task: what the platform does on the task's behalf with its execution role, it does as this one
// (api.Invoke). It is not a request of anybody: the role's trust policy must let ecs-tasks.amazonaws.com assume it, for a task of this ARN
// (aws:SourceArn) and account. The session is called like the task's id. The refusal is ECS's.
func (s *Service) TaskIdentity(account, role, taskARN string) (api.Identity, error) {
	id, _, ok := s.Roles.Role(role)
	trust, trusted := s.Roles.Trust(role)
	refusal := awserr.New("ClientException", "ECS was unable to assume the role '%s' that was provided for this task. Please verify that the role being passed "+
		"has the proper trust relationship and permissions and that your IAM user has permissions to pass this role.", role)
	if a, err := arn.Parse(role); !ok || !trusted || err != nil || a.Account != account {
		return api.Identity{}, refusal
	}
	name := taskARN[strings.LastIndexByte(taskARN, '/')+1:]
	keys := map[string]string{"aws:sourceaccount": account, "aws:sourcearn": taskARN, "sts:rolesessionname": name, "aws:principalisawsservice": "true",
		"aws:principalservicename": TaskService}
	request := policy.Request{Action: "sts:AssumeRole", Resource: role, Principal: policy.Principal{Service: TaskService}, Key: func(k string) ([]string, bool) {
		v, ok := keys[k]
		return []string{v}, ok
	}}
	if d := new(policy.Policies).Decide(&request, policy.Target{Account: account, Policy: trust, Guarded: true}); !d.Allowed {
		return api.Identity{}, refusal
	}
	now := s.Clock.Now().UTC().Truncate(time.Second)
	return roleIdentity(role, id, &api.Session{Role: role, Name: name, Issued: now, Expires: now.Add(taskSession)}), nil
}

// TaskCredentials are temporary credentials of that identity.
func (s *Service) TaskCredentials(account, role, taskARN string) (api.Credential, error) {
	who, err := s.TaskIdentity(account, role, taskARN)
	if err != nil {
		return api.Credential{}, err
	}
	return s.Sessions.Begin(who), nil
}

// TaskMay says whether a task may do something by a role of it, in the task's region: what the platform does by itself on the task's behalf,
// without calling an operation. The error is a refusal: that the role is not the task's to assume, or IAM's.
func (s *Service) TaskMay(ctx context.Context, role, taskARN, action, resource string) error {
	a, err := arn.Parse(taskARN)
	if err != nil {
		return err
	}
	who, err := s.TaskIdentity(a.Account, role, taskARN)
	if err != nil {
		return err
	}
	service, operation, _ := strings.Cut(action, ":")
	call := &api.Call{Identity: who, Region: a.Region, Service: service, Operation: operation, Time: s.Clock.Now(), Secure: true}
	return s.Authorizer.Authorize(ctx, call, api.Access{Action: action, Resources: []string{resource}})
}
