package ec2

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// groupText is what names and descriptions are made of.
var groupText = regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]+$`)

const groupTextSays = "a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"

// createSecurityGroup implements ec2:CreateSecurityGroup. A new group lets nothing in and everything out, of either family.
func (s *Service) createSecurityGroup(ctx context.Context, in *ec2.CreateSecurityGroupInput) (*ec2.CreateSecurityGroupOutput, error) {
	name, description := str(in.GroupName), str(in.Description)
	switch {
	case name == "":
		return nil, awserr.New("MissingParameter", "The request must contain the parameter GroupName")
	case description == "":
		return nil, awserr.New("MissingParameter", "The request must contain the parameter GroupDescription")
	case name == defaultGroupName:
		return nil, awserr.New("InvalidParameterValue", "Cannot use reserved security group name: default")
	case strings.HasPrefix(name, "sg-"):
		return nil, awserr.New("InvalidParameterValue", "Invalid value '%s' for groupName. Group names may not be in the format sg-*.", name)
	case len(name) > 255 || !groupText.MatchString(name):
		return nil, awserr.New("InvalidParameterValue", "Invalid security group name. Valid names are strings less than 256 characters from the following set: %s", groupTextSays)
	case len(description) > 255 || !groupText.MatchString(description):
		return nil, awserr.New("InvalidParameterValue", "Invalid security group description. Valid descriptions are strings less than 256 characters from the following set: %s", groupTextSays)
	}
	tags, err := tagSpecification(in.TagSpecifications, "security-group")
	if err != nil {
		return nil, err
	}
	g := &SecurityGroup{
		Id: "sg-" + id.Hex(s.Rand, 17), Name: name, Description: description,
		Rules: []*SecurityGroupRule{
			{Id: "sgr-" + id.Hex(s.Rand, 17), Egress: true, Protocol: "-1", FromPort: -1, ToPort: -1, CidrIpv4: "0.0.0.0/0"},
			{Id: "sgr-" + id.Hex(s.Rand, 17), Egress: true, Protocol: "-1", FromPort: -1, ToPort: -1, CidrIpv6: "::/0"},
		},
	}
	out := &ec2.CreateSecurityGroupOutput{GroupId: &g.Id}
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g.Account, g.Region, g.Vpc = scope.Account, scope.Region, s.Network.DefaultVPC(scope.Account, scope.Region)
		if in.VpcId != nil {
			if err := vpcKind.check([]string{*in.VpcId}, func(id string) bool { return id == g.Vpc }); err != nil {
				return err
			}
		}
		have := groups(tx, scope)
		switch {
		case slices.ContainsFunc(have, func(h *SecurityGroup) bool { return h.Name == name }):
			return awserr.New("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, g.Vpc)
		case len(have) >= maxGroups:
			return awserr.New("SecurityGroupLimitExceeded", "The maximum number of security groups for VPC '%s' has been reached.", g.Vpc)
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		SecurityGroups.Put(tx, g)
		controlplane.PutTags(tx, scope, g.ARN(), tags)
		out.SecurityGroupArn, out.Tags = new(g.ARN()), shapeTags(tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// deleteSecurityGroup implements ec2:DeleteSecurityGroup.
func (s *Service) deleteSecurityGroup(ctx context.Context, in *ec2.DeleteSecurityGroupInput) (*ec2.DeleteSecurityGroupOutput, error) {
	out := &ec2.DeleteSecurityGroupOutput{Return: new(true)}
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := groupOf(tx, scope, in.GroupId, in.GroupName)
		if err != nil {
			return err
		}
		if g.Name == defaultGroupName {
			return awserr.New("CannotDelete", `the specified group: "%s" name: "%s" cannot be deleted by a user`, g.Id, g.Name)
		}
		if s.inUse(tx, scope, g.Id) {
			return awserr.New("DependencyViolation", "resource %s has a dependent object", g.Id)
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		SecurityGroups.Delete(tx, SecurityGroups.Key(g))
		controlplane.PutTags(tx, scope, g.ARN(), nil)
		out.GroupId = &g.Id
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// inUse says whether a task that is not over, a load balancer or another group's rule has the group.
func (s *Service) inUse(r state.Reader, scope controlplane.Scope, group string) bool {
	for range controlplane.LiveTasksBySecurityGroup.Scan(r, scope.Key(group)) {
		return true
	}
	for g := range GroupsReferring.Scan(r, scope.Key(group)) {
		if g.Id != group {
			return true
		}
	}
	return s.Uses != nil && s.Uses(r, scope.Account, scope.Region, group)
}
