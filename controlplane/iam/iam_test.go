package iam

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
)

const (
	here      = "111111111111"
	elsewhere = "222222222222"
	allowAll  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	allowECS  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*"}]}`
	trustECS  = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}}`
)

// account is the family over real state in memory, as one account sees it.
type account struct {
	*Service
	t  testing.TB
	id string
}

func newAccount(t testing.TB) account {
	t.Helper()
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	sealer, err := seal.New(key, "iam")
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, slices.Concat(controlplane.Schema, Schema)...)
	return account{New(Config{Store: store, Rand: rand.Reader, Pages: api.NewPages(sealer), Seal: sealer, Clock: clock.Real{}}), t, here}
}

func (a account) in(id string) account { return account{a.Service, a.t, id} }

func (a account) as(who api.Identity) context.Context {
	return api.WithCall(context.Background(), &api.Call{Identity: who, Region: "us-east-1", Service: "iam", Operation: "test", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
}

func (a account) ctx() context.Context {
	return a.as(api.Identity{Account: a.id, ARN: "arn:aws:iam::" + a.id + ":root", UserID: a.id, Root: true})
}

// must returns what a call answers.
func must[I, O any](a account, f func(context.Context, *I) (*O, error), in *I) *O {
	a.t.Helper()
	out, err := f(a.ctx(), in)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// refuse wants an error with these words.
func refuse[I, O any](a account, want string, f func(context.Context, *I) (*O, error), in *I) {
	a.t.Helper()
	if out, err := f(a.ctx(), in); err == nil || err.Error() != want {
		a.t.Errorf("got %+v, %v\nwant %s", out, err, want)
	}
}

func TestUsers(t *testing.T) {
	a := newAccount(t)
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("Ana"), Path: new("/ops/"), Tags: []types.Tag{{Key: new("team"), Value: new("red")}}}).User
	if *u.Arn != "arn:aws:iam::"+here+":user/ops/Ana" || *u.Path != "/ops/" || !strings.HasPrefix(*u.UserId, "AIDA") || len(*u.UserId) != 21 || len(u.Tags) != 1 || u.CreateDate.Year() != 2026 {
		t.Errorf("made %+v", u)
	}
	refuse(a, "EntityAlreadyExists: User with name ana already exists.", a.createUser, &iam.CreateUserInput{UserName: new("ana")})
	refuse(a, "NoSuchEntity: The user with name bob cannot be found.", a.getUser, &iam.GetUserInput{UserName: new("bob")})
	if got := must(a, a.getUser, &iam.GetUserInput{}).User; *got.Arn != "arn:aws:iam::"+here+":root" {
		t.Errorf("root is %s", *got.Arn)
	}
	// A new name and path take everything along.
	k := must(a, a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("Ana")}).AccessKey
	must(a, a.createGroup, &iam.CreateGroupInput{GroupName: new("admins")})
	must(a, a.addUserToGroup, &iam.AddUserToGroupInput{GroupName: new("admins"), UserName: new("Ana")})
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("taken")})
	refuse(a, "EntityAlreadyExists: User with name Taken already exists.", a.updateUser, &iam.UpdateUserInput{UserName: new("Ana"), NewUserName: new("Taken")})
	must(a, a.updateUser, &iam.UpdateUserInput{UserName: new("Ana"), NewUserName: new("Eve"), NewPath: new("/")})
	must(a, a.updateGroup, &iam.UpdateGroupInput{GroupName: new("admins"), NewGroupName: new("staff")})
	got := must(a, a.getUser, &iam.GetUserInput{UserName: new("Eve")}).User
	if *got.UserId != *u.UserId || *got.Arn != "arn:aws:iam::"+here+":user/Eve" || len(got.Tags) != 1 {
		t.Errorf("renamed %+v", got)
	}
	if keys := must(a, a.listAccessKeys, &iam.ListAccessKeysInput{UserName: new("Eve")}).AccessKeyMetadata; len(keys) != 1 || *keys[0].AccessKeyId != *k.AccessKeyId {
		t.Errorf("keys %+v", keys)
	}
	if groups := must(a, a.listGroupsForUser, &iam.ListGroupsForUserInput{UserName: new("Eve")}).Groups; len(groups) != 1 || *groups[0].GroupName != "staff" {
		t.Errorf("groups %+v", groups)
	}
	if users := must(a, a.getGroup, &iam.GetGroupInput{GroupName: new("staff")}).Users; len(users) != 1 || *users[0].UserName != "Eve" {
		t.Errorf("members %+v", users)
	}
	// It goes when nothing hangs on it.
	gone := &iam.DeleteUserInput{UserName: new("Eve")}
	refuse(a, "DeleteConflict: Cannot delete entity, must remove users from group first.", a.deleteUser, gone)
	refuse(a, "DeleteConflict: Cannot delete entity, must remove users from group first.", a.deleteGroup, &iam.DeleteGroupInput{GroupName: new("staff")})
	must(a, a.removeUserFromGroup, &iam.RemoveUserFromGroupInput{GroupName: new("staff"), UserName: new("Eve")})
	refuse(a, "DeleteConflict: Cannot delete entity, must delete access keys first.", a.deleteUser, gone)
	must(a, a.deleteAccessKey, &iam.DeleteAccessKeyInput{UserName: new("Eve"), AccessKeyId: k.AccessKeyId})
	must(a, a.putUserPolicy, &iam.PutUserPolicyInput{UserName: new("Eve"), PolicyName: new("p"), PolicyDocument: new(allowAll)})
	refuse(a, "DeleteConflict: Cannot delete entity, must delete policies first.", a.deleteUser, gone)
	must(a, a.deleteUserPolicy, &iam.DeleteUserPolicyInput{UserName: new("Eve"), PolicyName: new("p")})
	must(a, a.attachUserPolicy, &iam.AttachUserPolicyInput{UserName: new("Eve"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	refuse(a, "DeleteConflict: Cannot delete entity, must detach all policies first.", a.deleteUser, gone)
	must(a, a.detachUserPolicy, &iam.DetachUserPolicyInput{UserName: new("Eve"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	must(a, a.deleteUser, gone)
	refuse(a, "NoSuchEntity: The user with name Eve cannot be found.", a.deleteUser, gone)
}

func TestPages(t *testing.T) {
	a := newAccount(t)
	for i := range 5 {
		path := "/a/"
		if i%2 == 1 {
			path = "/b/"
		}
		must(a, a.createRole, &iam.CreateRoleInput{RoleName: new(fmt.Sprint("r", i)), Path: &path, AssumeRolePolicyDocument: new(trustECS)})
	}
	var got []string
	in := &iam.ListRolesInput{MaxItems: new(int32(2)), PathPrefix: new("/a")}
	for {
		out := must(a, a.listRoles, in)
		for _, r := range out.Roles {
			got = append(got, *r.RoleName)
		}
		if out.IsTruncated != (out.Marker != nil) {
			t.Fatalf("truncated %v with marker %v", out.IsTruncated, out.Marker)
		}
		if in.Marker = out.Marker; in.Marker == nil {
			break
		}
		if len(out.Roles) != 2 {
			t.Fatalf("a page of %d", len(out.Roles))
		}
	}
	if want := []string{"r0", "r2", "r4"}; !slices.Equal(got, want) {
		t.Errorf("pages show %v, want %v", got, want)
	}
	in.Marker = new("nonsense")
	refuse(a, "ValidationError: Invalid marker.", a.listRoles, in)
}

func TestAccessKeys(t *testing.T) {
	a := newAccount(t)
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	k := must(a, a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("ana")}).AccessKey
	if len(*k.AccessKeyId) != 20 || len(*k.SecretAccessKey) != 40 {
		t.Errorf("key %s, secret of %d characters", *k.AccessKeyId, len(*k.SecretAccessKey))
	}
	if of, ok := AccountOfKey(*k.AccessKeyId); of != here || !ok {
		t.Errorf("the key's account is read as %q", of)
	}
	// As tools read AWS's: the first six bytes, masked and shifted.
	raw, err := encoding.DecodeString((*k.AccessKeyId)[4:])
	if err != nil || binary.BigEndian.Uint64(append([]byte{0, 0}, raw[:6]...))&0x7fffffffff80>>7 != 111111111111 {
		t.Errorf("the key decodes to %x, %v", raw, err)
	}
	rec, _ := AccessKeys.Get(a.Store.View(), AccessKeys.Key(&AccessKey{Account: here, Id: *k.AccessKeyId}))
	if strings.Contains(string(rec.Secret), *k.SecretAccessKey) {
		t.Error("the record holds the secret in clear")
	}
	must(a, a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("ana")})
	refuse(a, "LimitExceeded: Cannot exceed quota for AccessKeysPerUser: 2", a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("ana")})
	refuse(a, "ValidationError: Must specify userName when calling with non-User credentials", a.createAccessKey, &iam.CreateAccessKeyInput{})

	c, ok, err := a.Lookup(t.Context(), *k.AccessKeyId, "")
	if want := (api.Identity{Account: here, ARN: *u.Arn, UserID: *u.UserId, AccessKeyID: *k.AccessKeyId}); err != nil || !ok || c.SecretAccessKey != *k.SecretAccessKey || !reflect.DeepEqual(c.Identity, want) {
		t.Errorf("found %+v, %v, %v", c, ok, err)
	}
	// The user itself may leave its name out.
	mine, err := a.listAccessKeys(a.as(c.Identity), &iam.ListAccessKeysInput{})
	if err != nil || len(mine.AccessKeyMetadata) != 2 {
		t.Errorf("the caller's keys: %+v, %v", mine, err)
	}
	found := func() bool {
		_, ok, err := a.Lookup(t.Context(), *k.AccessKeyId, "")
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	set := func(s types.StatusType) {
		must(a, a.updateAccessKey, &iam.UpdateAccessKeyInput{UserName: new("ana"), AccessKeyId: k.AccessKeyId, Status: s})
	}
	if set(types.StatusTypeInactive); found() {
		t.Error("an inactive key is good")
	}
	if set(types.StatusTypeActive); !found() {
		t.Error("an active key is not good")
	}
	last := func() *types.AccessKeyLastUsed {
		return must(a, a.getAccessKeyLastUsed, &iam.GetAccessKeyLastUsedInput{AccessKeyId: k.AccessKeyId}).AccessKeyLastUsed
	}
	if l := last(); l.LastUsedDate != nil || *l.ServiceName != "N/A" {
		t.Errorf("an unused key was used: %+v", l)
	}
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	a.Used(&api.Call{Identity: c.Identity, Region: "eu-west-1", Service: "ecs", Time: at})
	if l := last(); !l.LastUsedDate.Equal(at) || *l.ServiceName != "ecs" || *l.Region != "eu-west-1" {
		t.Errorf("last used %+v", l)
	}
	must(a, a.deleteAccessKey, &iam.DeleteAccessKeyInput{UserName: new("ana"), AccessKeyId: k.AccessKeyId})
	if found() {
		t.Error("a deleted key is good")
	}
	refuse(a, "NoSuchEntity: The Access Key with id "+*k.AccessKeyId+" cannot be found.", a.deleteAccessKey, &iam.DeleteAccessKeyInput{UserName: new("ana"), AccessKeyId: k.AccessKeyId})
}

func TestManagedPolicies(t *testing.T) {
	a := newAccount(t)
	p := must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("ecs"), Path: new("/team/"), Description: new("d"), PolicyDocument: new(allowECS)}).Policy
	if *p.Arn != "arn:aws:iam::"+here+":policy/team/ecs" || !strings.HasPrefix(*p.PolicyId, "ANPA") || *p.DefaultVersionId != "v1" || !p.IsAttachable {
		t.Errorf("made %+v", p)
	}
	refuse(a, "EntityAlreadyExists: A policy called ECS already exists. Duplicate names are not allowed.", a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("ECS"), PolicyDocument: new(allowECS)})
	refuse(a, "MalformedPolicyDocument: Policy document must be version 2012-10-17 or greater.", a.createPolicy,
		&iam.CreatePolicyInput{PolicyName: new("old"), PolicyDocument: new(`{"Statement":[]}`)})
	refuse(a, "LimitExceeded: Cannot exceed quota for PolicySize: 6144", a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("big"), PolicyDocument: new(sized(6145))})
	must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("full"), PolicyDocument: new(strings.ReplaceAll(sized(6144), ",", ", \n"))})

	for range 4 {
		must(a, a.createPolicyVersion, &iam.CreatePolicyVersionInput{PolicyArn: p.Arn, PolicyDocument: new(allowAll)})
	}
	refuse(a, "LimitExceeded: A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.",
		a.createPolicyVersion, &iam.CreatePolicyVersionInput{PolicyArn: p.Arn, PolicyDocument: new(allowAll)})
	refuse(a, "DeleteConflict: Cannot delete the default version of a policy.", a.deletePolicyVersion, &iam.DeletePolicyVersionInput{PolicyArn: p.Arn, VersionId: new("v1")})
	must(a, a.setDefaultPolicyVersion, &iam.SetDefaultPolicyVersionInput{PolicyArn: p.Arn, VersionId: new("v3")})
	must(a, a.deletePolicyVersion, &iam.DeletePolicyVersionInput{PolicyArn: p.Arn, VersionId: new("v5")})
	if v := must(a, a.createPolicyVersion, &iam.CreatePolicyVersionInput{PolicyArn: p.Arn, PolicyDocument: new(allowAll), SetAsDefault: true}).PolicyVersion; *v.VersionId != "v6" || !v.IsDefaultVersion {
		t.Errorf("a deleted version's number was given again: %+v", v)
	}
	var ids []string
	for _, v := range must(a, a.listPolicyVersions, &iam.ListPolicyVersionsInput{PolicyArn: p.Arn}).Versions {
		ids = append(ids, *v.VersionId)
	}
	if want := []string{"v6", "v4", "v3", "v2", "v1"}; !slices.Equal(ids, want) {
		t.Errorf("versions %v, want %v", ids, want)
	}
	doc, err := url.QueryUnescape(*must(a, a.getPolicyVersion, &iam.GetPolicyVersionInput{PolicyArn: p.Arn, VersionId: new("v1")}).PolicyVersion.Document)
	if err != nil || doc != allowECS {
		t.Errorf("the document is %s, %v", doc, err)
	}
	refuse(a, "NoSuchEntity: Policy "+*p.Arn+" version v9 does not exist or is not attachable.", a.getPolicyVersion, &iam.GetPolicyVersionInput{PolicyArn: p.Arn, VersionId: new("v9")})

	// Attached, it stays.
	must(a, a.createGroup, &iam.CreateGroupInput{GroupName: new("g")})
	must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustECS), PermissionsBoundary: p.Arn})
	must(a, a.attachGroupPolicy, &iam.AttachGroupPolicyInput{GroupName: new("g"), PolicyArn: p.Arn})
	must(a, a.attachGroupPolicy, &iam.AttachGroupPolicyInput{GroupName: new("g"), PolicyArn: p.Arn}) // again changes nothing
	if got := must(a, a.getPolicy, &iam.GetPolicyInput{PolicyArn: p.Arn}).Policy; *got.AttachmentCount != 1 || *got.PermissionsBoundaryUsageCount != 1 || *got.Description != "d" {
		t.Errorf("attached %+v", got)
	}
	e := must(a, a.listEntitiesForPolicy, &iam.ListEntitiesForPolicyInput{PolicyArn: p.Arn})
	if len(e.PolicyGroups) != 1 || *e.PolicyGroups[0].GroupName != "g" || len(e.PolicyRoles) != 1 || len(e.PolicyUsers) != 0 {
		t.Errorf("entities %+v", e)
	}
	e = must(a, a.listEntitiesForPolicy, &iam.ListEntitiesForPolicyInput{PolicyArn: p.Arn, PolicyUsageFilter: types.PolicyUsageTypePermissionsPolicy})
	if len(e.PolicyRoles) != 0 {
		t.Errorf("entities by use %+v", e)
	}
	refuse(a, "DeleteConflict: Cannot delete a policy attached to entities.", a.deletePolicy, &iam.DeletePolicyInput{PolicyArn: p.Arn})
	must(a, a.detachGroupPolicy, &iam.DetachGroupPolicyInput{GroupName: new("g"), PolicyArn: p.Arn})
	refuse(a, "NoSuchEntity: Policy "+*p.Arn+" was not found.", a.detachGroupPolicy, &iam.DetachGroupPolicyInput{GroupName: new("g"), PolicyArn: p.Arn})
	refuse(a, "DeleteConflict: Cannot delete a policy used as a permissions boundary.", a.deletePolicy, &iam.DeletePolicyInput{PolicyArn: p.Arn})
	must(a, a.deleteRolePermissionsBoundary, &iam.DeleteRolePermissionsBoundaryInput{RoleName: new("r")})
	refuse(a, "DeleteConflict: This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.",
		a.deletePolicy, &iam.DeletePolicyInput{PolicyArn: p.Arn})
	for _, v := range []string{"v1", "v2", "v3", "v4"} {
		must(a, a.deletePolicyVersion, &iam.DeletePolicyVersionInput{PolicyArn: p.Arn, VersionId: &v})
	}
	must(a, a.deletePolicy, &iam.DeletePolicyInput{PolicyArn: p.Arn})
	refuse(a, "NoSuchEntity: Policy "+*p.Arn+" does not exist or is not attachable.", a.attachRolePolicy, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: p.Arn})
	refuse(a, "ValidationError: ARN nonsense-of-20-letters is not valid.", a.attachRolePolicy, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: new("nonsense-of-20-letters")})
	refuse(a, "AccessDenied: Policy is outside your own account.", a.deletePolicy, &iam.DeletePolicyInput{PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	// At most ten.
	for i := range 11 {
		arn := must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: new(fmt.Sprint("p", i)), PolicyDocument: new(allowECS)}).Policy.Arn
		if i == 10 {
			refuse(a, "LimitExceeded: Cannot exceed quota for PoliciesPerRole: 10", a.attachRolePolicy, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: arn})
			break
		}
		must(a, a.attachRolePolicy, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: arn})
	}
}

// sized is a document of n characters.
func sized(n int) string {
	const frame = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":["arn:aws:s3:::"]}]}`
	fill := n - len(frame)
	return strings.Replace(frame, ":::", ":::"+strings.Repeat("x", fill), 1)
}

func TestAWSManagedPolicies(t *testing.T) {
	a := newAccount(t)
	all := must(a, a.listPolicies, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeAws}).Policies
	if len(all) != len(awsManaged) || len(all) < 10 {
		t.Errorf("%d policies of AWS's", len(all))
	}
	for arn, p := range awsManaged {
		if err := checkManaged(new(p.defaultDocument())); err != nil {
			t.Errorf("%s: %v", arn, err)
		}
	}
	must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustECS)})
	arn := new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")
	must(a, a.attachRolePolicy, &iam.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: arn})
	attached := must(a, a.listPolicies, &iam.ListPoliciesInput{OnlyAttached: true}).Policies
	if len(attached) != 1 || *attached[0].Arn != *arn || *attached[0].AttachmentCount != 1 {
		t.Errorf("attached %+v", attached)
	}
	listed := must(a, a.listAttachedRolePolicies, &iam.ListAttachedRolePoliciesInput{RoleName: new("r"), PathPrefix: new("/service-role/")}).AttachedPolicies
	if len(listed) != 1 || *listed[0].PolicyName != "AmazonECSTaskExecutionRolePolicy" {
		t.Errorf("listed %+v", listed)
	}
	// Counts are the account's own.
	if got := must(a.in(elsewhere), a.getPolicy, &iam.GetPolicyInput{PolicyArn: arn}).Policy; *got.AttachmentCount != 0 {
		t.Errorf("another account counts %d", *got.AttachmentCount)
	}
}

func TestInlinePolicies(t *testing.T) {
	a := newAccount(t)
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("u")})
	put := func(name, doc string) *iam.PutUserPolicyInput {
		return &iam.PutUserPolicyInput{UserName: new("u"), PolicyName: &name, PolicyDocument: &doc}
	}
	refuse(a, "MalformedPolicyDocument: Syntax errors in policy.", a.putUserPolicy, put("p", "{"))
	refuse(a, "MalformedPolicyDocument: Policy document should not specify a principal.", a.putUserPolicy, put("p", trustECS))
	refuse(a, "NoSuchEntity: The user policy with name p cannot be found.", a.getUserPolicy, &iam.GetUserPolicyInput{UserName: new("u"), PolicyName: new("p")})
	must(a, a.putUserPolicy, put("p", sized(1000)))
	must(a, a.putUserPolicy, put("q", sized(1048)))
	refuse(a, "LimitExceeded: Maximum policy size of 2048 bytes exceeded for user u", a.putUserPolicy, put("q", sized(1049)))
	must(a, a.putUserPolicy, put("p", `{"Statement":[]}`)) // replaced, and of the old version
	if names := must(a, a.listUserPolicies, &iam.ListUserPoliciesInput{UserName: new("u")}).PolicyNames; !slices.Equal(names, []string{"p", "q"}) {
		t.Errorf("names %v", names)
	}
	if got := must(a, a.getUserPolicy, &iam.GetUserPolicyInput{UserName: new("u"), PolicyName: new("p")}); *got.PolicyDocument != "%7B%22Statement%22%3A%5B%5D%7D" {
		t.Errorf("document %s", *got.PolicyDocument)
	}
	refuse(a, "NoSuchEntity: The user policy with name none cannot be found.", a.deleteUserPolicy, &iam.DeleteUserPolicyInput{UserName: new("u"), PolicyName: new("none")})
}

func TestRoles(t *testing.T) {
	a := newAccount(t)
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	trust := strings.Replace(trustECS, `"Service":"ecs-tasks.amazonaws.com"`, `"AWS":"`+*u.Arn+`"`, 1)
	r := must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("deploy"), Path: new("/ci/"), AssumeRolePolicyDocument: &trust, MaxSessionDuration: new(int32(7200))}).Role
	if *r.Arn != "arn:aws:iam::"+here+":role/ci/deploy" || !strings.HasPrefix(*r.RoleId, "AROA") || *r.MaxSessionDuration != 7200 {
		t.Errorf("made %+v", r)
	}
	if doc, err := url.QueryUnescape(*r.AssumeRolePolicyDocument); err != nil || doc != trust {
		t.Errorf("trust %s, %v", doc, err)
	}
	refuse(a, `MalformedPolicyDocument: Invalid principal in policy: "AWS":"arn:aws:iam::`+here+`:user/nobody"`, a.updateAssumeRolePolicy,
		&iam.UpdateAssumeRolePolicyInput{RoleName: new("deploy"), PolicyDocument: new(strings.Replace(trust, "user/ana", "user/nobody", 1))})
	refuse(a, "MalformedPolicyDocument: Has prohibited field Resource", a.createRole, &iam.CreateRoleInput{RoleName: new("x"), AssumeRolePolicyDocument: new(strings.Replace(allowAll, `"*"`, `"sts:AssumeRole"`, 1))})
	refuse(a, "LimitExceeded: Cannot exceed quota for ACLSizePerRole: 2048", a.createRole, &iam.CreateRoleInput{RoleName: new("x"),
		AssumeRolePolicyDocument: new(strings.Replace(trustECS, `"sts:AssumeRole"`, `["sts:AssumeRole"`+strings.Repeat(`,"sts:AssumeRole"`, 120)+`]`, 1))})
	who := func(id string) *policy.Request {
		return &policy.Request{Action: "sts:AssumeRole", Resource: *r.Arn, Principal: policy.Principal{Account: here, ARN: *u.Arn, ID: id}}
	}
	p, ok := a.Trust(*r.Arn)
	if !ok || p.Evaluate(who(*u.UserId)) != policy.Allow {
		t.Error("the user that is trusted is not")
	}
	// Made again, the user is somebody else.
	must(a, a.deleteUser, &iam.DeleteUserInput{UserName: new("ana")})
	again := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	if p, _ := a.Trust(*r.Arn); p.Evaluate(who(*again.UserId)) == policy.Allow {
		t.Error("a new user has the trust of the old one")
	}
	must(a, a.updateAssumeRolePolicy, &iam.UpdateAssumeRolePolicyInput{RoleName: new("deploy"), PolicyDocument: &trust})
	if p, _ := a.Trust(*r.Arn); p.Evaluate(who(*again.UserId)) != policy.Allow {
		t.Error("the new trust does not count")
	}
	must(a, a.createInstanceProfile, &iam.CreateInstanceProfileInput{InstanceProfileName: new("web")})
	must(a, a.addRoleToInstanceProfile, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("web"), RoleName: new("deploy")})
	refuse(a, "LimitExceeded: Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1", a.addRoleToInstanceProfile, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("web"), RoleName: new("deploy")})
	refuse(a, "DeleteConflict: Cannot delete entity, must remove roles from instance profile first.", a.deleteRole, &iam.DeleteRoleInput{RoleName: new("deploy")})
	if got := must(a, a.listInstanceProfilesForRole, &iam.ListInstanceProfilesForRoleInput{RoleName: new("deploy")}).InstanceProfiles; len(got) != 1 || len(got[0].Roles) != 1 {
		t.Errorf("profiles %+v", got)
	}
	must(a, a.removeRoleFromInstanceProfile, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: new("web"), RoleName: new("deploy")})
	must(a, a.deleteRole, &iam.DeleteRoleInput{RoleName: new("deploy")})
	if _, ok := a.Trust(*r.Arn); ok {
		t.Error("a deleted role has a trust policy")
	}
}

// Accounts share no names, and see nothing of one another.
func TestAccountsAreApart(t *testing.T) {
	a := newAccount(t)
	b := a.in(elsewhere)
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")})
	arn := must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)}).Policy.Arn
	key := must(a, a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("ana")}).AccessKey
	if got := must(b, b.listUsers, &iam.ListUsersInput{}).Users; len(got) != 0 {
		t.Errorf("the other account sees %+v", got)
	}
	refuse(b, "NoSuchEntity: The user with name ana cannot be found.", b.getUser, &iam.GetUserInput{UserName: new("ana")})
	must(b, b.createUser, &iam.CreateUserInput{UserName: new("ana")})
	refuse(b, "NoSuchEntity: Policy "+*arn+" does not exist or is not attachable.", b.attachUserPolicy, &iam.AttachUserPolicyInput{UserName: new("ana"), PolicyArn: arn})
	refuse(b, "NoSuchEntity: Policy "+*arn+" was not found.", b.getPolicy, &iam.GetPolicyInput{PolicyArn: arn})
	refuse(b, "NoSuchEntity: Policy "+*arn+" was not found.", b.deletePolicy, &iam.DeletePolicyInput{PolicyArn: arn})
	refuse(b, "NoSuchEntity: The Access Key with id "+*key.AccessKeyId+" cannot be found.", b.deleteAccessKey, &iam.DeleteAccessKeyInput{UserName: new("ana"), AccessKeyId: key.AccessKeyId})
	if got := must(b, b.getAccountSummary, &iam.GetAccountSummaryInput{}).SummaryMap; got["Users"] != 1 || got["Policies"] != 0 {
		t.Errorf("summary %v", got)
	}
	d := must(a, a.getAccountAuthorizationDetails, &iam.GetAccountAuthorizationDetailsInput{})
	if len(d.UserDetailList) != 1 || len(d.Policies) != 1 || *d.Policies[0].Arn != *arn {
		t.Errorf("details %+v", d)
	}
}

// What binds a user: its own, its groups', boundary and session; each change counts with the next call.
func TestPolicies(t *testing.T) {
	a := newAccount(t)
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	who := api.Identity{Account: here, ARN: *u.Arn, UserID: *u.UserId}
	may := func(action string) bool {
		t.Helper()
		p, ok := a.Policies(&who)
		if !ok {
			t.Fatal("the user is gone")
		}
		return p.Decide(&policy.Request{Action: action, Resource: "*", Principal: policy.Principal{Account: here, ARN: *u.Arn}}, policy.Target{}).Allowed
	}
	check := func(what, action string, want bool) {
		t.Helper()
		if may(action) != want {
			t.Errorf("%s: %s is allowed: %v", what, action, !want)
		}
	}
	check("nothing", "ecs:RunTask", false)
	must(a, a.putUserPolicy, &iam.PutUserPolicyInput{UserName: new("ana"), PolicyName: new("p"), PolicyDocument: new(allowECS)})
	check("inline", "ecs:RunTask", true)
	must(a, a.deleteUserPolicy, &iam.DeleteUserPolicyInput{UserName: new("ana"), PolicyName: new("p")})
	check("inline gone", "ecs:RunTask", false)

	must(a, a.createGroup, &iam.CreateGroupInput{GroupName: new("g")})
	must(a, a.addUserToGroup, &iam.AddUserToGroupInput{GroupName: new("g"), UserName: new("ana")})
	must(a, a.putGroupPolicy, &iam.PutGroupPolicyInput{GroupName: new("g"), PolicyName: new("p"), PolicyDocument: new(allowECS)})
	check("group", "ecs:RunTask", true)
	must(a, a.deleteGroupPolicy, &iam.DeleteGroupPolicyInput{GroupName: new("g"), PolicyName: new("p")})
	arn := must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowECS)}).Policy.Arn
	must(a, a.attachGroupPolicy, &iam.AttachGroupPolicyInput{GroupName: new("g"), PolicyArn: arn})
	check("group's managed", "ecs:RunTask", true)
	must(a, a.createPolicyVersion, &iam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: new(strings.Replace(allowECS, "ecs", "ecr", 1)), SetAsDefault: true})
	check("another default version", "ecs:RunTask", false)
	must(a, a.setDefaultPolicyVersion, &iam.SetDefaultPolicyVersionInput{PolicyArn: arn, VersionId: new("v1")})
	must(a, a.removeUserFromGroup, &iam.RemoveUserFromGroupInput{GroupName: new("g"), UserName: new("ana")})
	check("out of the group", "ecs:RunTask", false)

	must(a, a.attachUserPolicy, &iam.AttachUserPolicyInput{UserName: new("ana"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	check("administrator", "iam:CreateUser", true)
	must(a, a.putUserPermissionsBoundary, &iam.PutUserPermissionsBoundaryInput{UserName: new("ana"), PermissionsBoundary: arn})
	check("beyond the boundary", "iam:CreateUser", false)
	check("within the boundary", "ecs:RunTask", true)
	must(a, a.deleteUserPermissionsBoundary, &iam.DeleteUserPermissionsBoundaryInput{UserName: new("ana")})
	who.Session = &api.Session{Policies: []string{allowECS}}
	check("beyond the session's policy", "iam:CreateUser", false)
	check("within it", "ecs:RunTask", true)
	who.Session = &api.Session{PolicyARNs: []string{*arn}}
	check("beyond the session's managed policy", "iam:CreateUser", false)
	check("within that", "ecs:RunTask", true)
	who.Session = nil
	must(a, a.detachUserPolicy, &iam.DetachUserPolicyInput{UserName: new("ana"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	must(a, a.deleteUser, &iam.DeleteUserInput{UserName: new("ana")})
	if _, ok := a.Policies(&who); ok {
		t.Error("a deleted user has policies")
	}
}

// changed is the token with another character in its middle.
func changed(token string) string {
	b := []byte(token)
	if b[len(b)/2] != 'A' {
		b[len(b)/2] = 'A'
	} else {
		b[len(b)/2] = 'B'
	}
	return string(b)
}

func TestSessions(t *testing.T) {
	a := newAccount(t)
	r := must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustECS)}).Role
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	c := a.Begin(api.Identity{Account: here, ARN: "arn:aws:sts::" + here + ":assumed-role/r/s", UserID: *r.RoleId + ":s",
		Session: &api.Session{Role: *r.Arn, Name: "s", Expires: expires, Tags: map[string]string{"a": "b"}}})
	id := c.Identity.AccessKeyID
	// A server that has never seen it, with the same sealing key.
	other := account{New(a.Config), t, here}
	for _, s := range []account{other, other, a} {
		got, ok, err := s.Lookup(t.Context(), id, c.SessionToken)
		if err != nil || !ok || !reflect.DeepEqual(got, c) || !got.Expires.Equal(expires) {
			t.Errorf("opened %+v, %v, %v\nwant %+v", got, ok, err, c)
		}
	}
	for name, try := range map[string][2]string{
		"another key id": {"ASIA" + id[5:] + "A", c.SessionToken},
		"no token":       {id, ""},
		"a changed one":  {id, changed(c.SessionToken)},
		"nonsense":       {id, "nonsense"},
	} {
		if _, ok, err := a.Lookup(t.Context(), try[0], try[1]); ok || err != nil {
			t.Errorf("%s: found, %v", name, err)
		}
	}
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	own := a.Begin(api.Identity{Account: here, ARN: *u.Arn, UserID: *u.UserId, Session: &api.Session{Expires: expires}})
	must(a, a.updateUser, &iam.UpdateUserInput{UserName: new("ana"), NewUserName: new("eve")})
	if got, _, _ := a.Lookup(t.Context(), own.Identity.AccessKeyID, own.SessionToken); got.Identity.ARN != "arn:aws:iam::"+here+":user/eve" {
		t.Errorf("the session of a renamed user is %s", got.Identity.ARN)
	}
	must(a, a.deleteRole, &iam.DeleteRoleInput{RoleName: new("r")})
	must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustECS)})
	if _, ok, _ := a.Lookup(t.Context(), id, c.SessionToken); ok {
		t.Error("a session outlived its role")
	}
}

func TestSimulation(t *testing.T) {
	a := newAccount(t)
	u := must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")}).User
	must(a, a.putUserPolicy, &iam.PutUserPolicyInput{UserName: new("ana"), PolicyName: new("p"), PolicyDocument: new(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":{"StringEquals":{"aws:RequestedRegion":"eu-west-1"}}},{"Effect":"Deny","Action":"ecs:DeleteCluster","Resource":"*"}]}`)})
	out := must(a, a.simulatePrincipalPolicy, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: u.Arn, ActionNames: []string{"ecs:RunTask", "ecs:DeleteCluster", "iam:ListUsers"},
		ContextEntries: []types.ContextEntry{{ContextKeyName: new("aws:RequestedRegion"), ContextKeyType: types.ContextKeyTypeEnumString, ContextKeyValues: []string{"eu-west-1"}}}})
	var got []string
	for _, r := range out.EvaluationResults {
		got = append(got, *r.EvalActionName+" "+string(r.EvalDecision))
	}
	if want := []string{"ecs:RunTask allowed", "ecs:DeleteCluster explicitDeny", "iam:ListUsers implicitDeny"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	custom := &iam.SimulateCustomPolicyInput{PolicyInputList: []string{allowECS}, ActionNames: []string{"ecs:RunTask", "ecr:PutImage"}, ResourceArns: []string{"*", "arn:aws:ecs:a:1:x"}, MaxItems: new(int32(3))}
	first := must(a, a.simulateCustomPolicy, custom)
	custom.Marker = first.Marker
	second := must(a, a.simulateCustomPolicy, custom)
	if len(first.EvaluationResults) != 3 || len(second.EvaluationResults) != 1 || *second.EvaluationResults[0].EvalActionName != "ecr:PutImage" || second.IsTruncated {
		t.Errorf("pages %+v, %+v", first, second)
	}
	refuse(a, "InvalidInput: The policy is not valid: Syntax errors in policy.", a.simulateCustomPolicy, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{"{"}, ActionNames: []string{"a:b"}})
}

func TestTags(t *testing.T) {
	a := newAccount(t)
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")})
	tag := func(k string) types.Tag { return types.Tag{Key: &k, Value: new("v")} }
	must(a, a.tagUser, &iam.TagUserInput{UserName: new("ana"), Tags: []types.Tag{tag("a"), tag("b")}})
	must(a, a.untagUser, &iam.UntagUserInput{UserName: new("ana"), TagKeys: []string{"a", "none"}})
	got := must(a, a.listUserTags, &iam.ListUserTagsInput{UserName: new("ana")}).Tags
	if len(got) != 1 || *got[0].Key != "b" {
		t.Errorf("tags %+v", got)
	}
	if _, err := a.tagUser(a.ctx(), &iam.TagUserInput{UserName: new("ana"), Tags: []types.Tag{tag("aws:x")}}); !awserr.Is(err, "InvalidInput") {
		t.Errorf("a reserved key: %v", err)
	}
	who := api.Identity{Account: here, UserID: aws.ToString(must(a, a.getUser, &iam.GetUserInput{UserName: new("ana")}).User.UserId)}
	if tags := a.Tags(&who); tags["b"] != "v" {
		t.Errorf("the caller's tags are %v", tags)
	}
}

// Attaching a policy and deleting it at once: one of the two wins, and what is attached exists. The same of groups and their users.
func TestDeletesMeetAttachments(t *testing.T) {
	a := newAccount(t)
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")})
	for i := range 30 {
		name := fmt.Sprint("x", i)
		arn := must(a, a.createPolicy, &iam.CreatePolicyInput{PolicyName: &name, PolicyDocument: new(allowECS)}).Policy.Arn
		must(a, a.createGroup, &iam.CreateGroupInput{GroupName: &name})
		var attached, deleted, joined, removed error
		var all sync.WaitGroup
		all.Go(func() {
			_, attached = a.attachUserPolicy(a.ctx(), &iam.AttachUserPolicyInput{UserName: new("ana"), PolicyArn: arn})
		})
		all.Go(func() { _, deleted = a.deletePolicy(a.ctx(), &iam.DeletePolicyInput{PolicyArn: arn}) })
		all.Go(func() {
			_, joined = a.addUserToGroup(a.ctx(), &iam.AddUserToGroupInput{UserName: new("ana"), GroupName: &name})
		})
		all.Go(func() { _, removed = a.deleteGroup(a.ctx(), &iam.DeleteGroupInput{GroupName: &name}) })
		all.Wait()
		if (attached == nil) == (deleted == nil) || (joined == nil) == (removed == nil) {
			t.Fatalf("attached: %v, deleted: %v; joined: %v, removed: %v", attached, deleted, joined, removed)
		}
		if attached == nil {
			must(a, a.detachUserPolicy, &iam.DetachUserPolicyInput{UserName: new("ana"), PolicyArn: arn})
		}
		if joined == nil {
			must(a, a.removeUserFromGroup, &iam.RemoveUserFromGroupInput{UserName: new("ana"), GroupName: &name})
		}
	}
}

// What each operation is held against.
func TestResources(t *testing.T) {
	a := newAccount(t)
	must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("deploy"), Path: new("/ci/"), AssumeRolePolicyDocument: new(trustECS), PermissionsBoundary: new("arn:aws:iam::aws:policy/PowerUserAccess")})
	c := &api.Call{Identity: api.Identity{Account: here, ARN: "arn:aws:iam::" + here + ":user/ana"}}
	table := map[reflect.Type]api.Operation{}
	for _, o := range a.Operations() {
		table[o.In] = o
	}
	for _, x := range []struct {
		in   any
		want string // after arn:aws:iam::ACCOUNT:
	}{
		{&iam.GetRoleInput{RoleName: new("deploy")}, "role/ci/deploy"},
		{&iam.GetRoleInput{RoleName: new("none")}, "role/none"},
		{&iam.CreateRoleInput{RoleName: new("new"), Path: new("/x/")}, "role/x/new"},
		{&iam.CreateUserInput{UserName: new("new")}, "user/new"},
		{&iam.GetUserInput{}, "user/ana"},
		{&iam.ListUsersInput{}, "user/"},
		{&iam.ListUsersInput{PathPrefix: new("/x/")}, "user/x/"},
		{&iam.AddUserToGroupInput{GroupName: new("g"), UserName: new("u")}, "group/g"},
		{&iam.AttachRolePolicyInput{RoleName: new("deploy"), PolicyArn: new("p")}, "role/ci/deploy"},
		{&iam.CreatePolicyInput{PolicyName: new("p")}, "policy/p"},
		{&iam.GetPolicyInput{PolicyArn: new("arn:aws:iam::" + here + ":policy/p")}, "policy/p"},
		{&iam.AddRoleToInstanceProfileInput{InstanceProfileName: new("i"), RoleName: new("deploy")}, "instance-profile/i"},
		{&iam.PutUserPolicyInput{UserName: new("u"), PolicyName: new("p")}, "user/u"},
	} {
		o := table[reflect.TypeOf(x.in).Elem()]
		if got := o.Needs(c, x.in)[0].Resources; !slices.Equal(got, []string{"arn:aws:iam::" + here + ":" + x.want}) {
			t.Errorf("%s: %v, want %s", o.Name, got, x.want)
		}
	}
	o := table[reflect.TypeFor[iam.AttachRolePolicyInput]()]
	in := &iam.AttachRolePolicyInput{RoleName: new("deploy"), PolicyArn: new("the-policy")}
	for key, want := range map[string]string{"iam:policyarn": "the-policy", "iam:permissionsboundary": "arn:aws:iam::aws:policy/PowerUserAccess"} {
		if got, ok := o.Needs(c, in)[0].Key(key); !ok || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v", key, got)
		}
	}
}

// BenchmarkLookup is what a signature costs beyond its own computation.
func BenchmarkLookup(b *testing.B) {
	a := newAccount(b)
	must(a, a.createUser, &iam.CreateUserInput{UserName: new("ana")})
	k := must(a, a.createAccessKey, &iam.CreateAccessKeyInput{UserName: new("ana")}).AccessKey
	r := must(a, a.createRole, &iam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trustECS)}).Role
	session := a.Begin(api.Identity{Account: here, UserID: *r.RoleId + ":s", Session: &api.Session{Role: *r.Arn, Expires: time.Now().Add(time.Hour)}})
	for name, key := range map[string][2]string{"key": {*k.AccessKeyId, ""}, "session": {session.Identity.AccessKeyID, session.SessionToken}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, _ := a.Lookup(context.Background(), key[0], key[1]); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}
