package ssm

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// "PutParameter" and "AWS Systems Manager endpoints and quotas".
const (
	maxStandard  = 4096 // bytes of a value
	maxAdvanced  = 8192
	maxVersions  = 100
	maxHierarchy = 15
	maxARN       = 1011
)

var (
	fullName   = regexp.MustCompile(`^(?:/?[a-zA-Z0-9_.-]+|(?:/[a-zA-Z0-9_.-]+)+)$`)
	systemName = regexp.MustCompile(`(?i)^/?(?:aws|ssm)`)
)

// checkName holds the name of a new parameter to what "PutParameter" says of it.
func checkName(scope controlplane.Scope, name string) error {
	switch {
	case len(parameterARN(scope, name)) > maxARN:
		return validation("Parameter name is too long: the ARN has more than %d characters.", maxARN)
	case systemName.MatchString(name):
		return validation(`Parameter name: can't be prefixed with "aws" or "ssm" (case-insensitive).`)
	case !strings.HasPrefix(name, "/") && strings.Contains(name, "/"):
		return validation("Parameter name must be a fully qualified name.")
	case !fullName.MatchString(name):
		return validation("Parameter name: if formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_")
	case strings.Count(name, "/") > maxHierarchy:
		return awserr.New("HierarchyLevelLimitExceededException", "Parameter name must not use more than %d levels.", maxHierarchy)
	}
	return nil
}

// checkPut refuses what does not exist here.
func checkPut(in *ssm.PutParameterInput) error {
	switch {
	case aws.ToString(in.Policies) != "" && aws.ToString(in.Policies) != "[]":
		return awserr.New("InvalidPolicyTypeException", "'Policies' is not supported by this platform: parameters do not expire.")
	case in.DataType != nil && *in.DataType != "" && *in.DataType != dataType:
		return validation("'DataType' is not supported by this platform with the value %s: only text is.", *in.DataType)
	case in.KeyId != nil && in.Type != types.ParameterTypeSecureString && in.Type != "":
		return validation("KeyId is not supported with parameter type %s.", in.Type)
	case in.KeyId != nil && *in.KeyId != defaultKey:
		return awserr.New("InvalidKeyId", "'KeyId' is not supported by this platform with the value %s: there are no KMS keys, only %s.", *in.KeyId, defaultKey)
	case aws.ToString(in.Value) == "":
		return validation("1 validation error detected: Value at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1.")
	case aws.ToBool(in.Overwrite) && len(in.Tags) > 0:
		return validation("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. " +
			"To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.")
	}
	return nil
}

const (
	dataType   = "text"
	defaultKey = "alias/aws/ssm"
)

// putParameter implements ssm:PutParameter.
func (f *Family) putParameter(ctx context.Context, in *ssm.PutParameterInput) (*ssm.PutParameterOutput, error) {
	if err := checkPut(in); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	c, newID := api.CallFrom(ctx), id.Hex(f.Rand, 16)
	out := &ssm.PutParameterOutput{}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, exists := Parameters.Get(tx, scope.Key(*in.Name))
		p := &Parameter{Account: scope.Account, Region: scope.Region, Name: *in.Name, Id: newID}
		v := &ParameterVersion{Type: string(in.Type), Description: aws.ToString(in.Description), AllowedPattern: aws.ToString(in.AllowedPattern)}
		was := &ParameterVersion{Tier: string(types.ParameterTierStandard)}
		switch {
		case exists && !aws.ToBool(in.Overwrite):
			return awserr.New("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
		case exists:
			p = proto.CloneOf(old)
			was, _ = p.at(tx, p.Version)
			if err := v.inherit(was, in); err != nil {
				return err
			}
		case in.Type == "":
			return validation("A parameter type is required when you create a parameter.")
		default:
			if err := checkName(scope, p.Name); err != nil {
				return err
			}
			controlplane.PutTags(tx, scope, p.ARN(), tags)
		}
		if err := v.check(was, in); err != nil {
			return err
		}
		if err := prune(tx, p); err != nil {
			return err
		}
		p.Version++
		v.Account, v.Region, v.Parameter, v.Version = scope.Account, scope.Region, p.Id, p.Version
		v.Modified, v.ModifiedBy = timestamppb.New(c.Time), c.ARN
		v.Sealed = f.Seal.Seal([]byte(*in.Value), v.bound(p))
		Parameters.Put(tx, p)
		Versions.Put(tx, v)
		out.Version, out.Tier = p.Version, types.ParameterTier(v.Tier)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// inherit takes over from the version before what the request leaves open.
func (v *ParameterVersion) inherit(was *ParameterVersion, in *ssm.PutParameterInput) error {
	if v.Type = cmp.Or(v.Type, was.Type); v.Type != was.Type {
		return awserr.New("HierarchyTypeMismatchException", "Parameter Store does not support changing a parameter type from %s to %s. Create a new, unique parameter.", was.Type, v.Type)
	}
	if in.Description == nil {
		v.Description = was.Description
	}
	if in.AllowedPattern == nil {
		v.AllowedPattern = was.AllowedPattern
	}
	return nil
}

// check settles the tier and holds the value to it and to the pattern.
func (v *ParameterVersion) check(was *ParameterVersion, in *ssm.PutParameterInput) error {
	value := *in.Value
	switch v.Tier = string(in.Tier); {
	case in.Tier == types.ParameterTierIntelligentTiering && len(value) > maxStandard:
		v.Tier = string(types.ParameterTierAdvanced)
	case in.Tier == types.ParameterTierIntelligentTiering, in.Tier == "":
		v.Tier = was.Tier
	case in.Tier == types.ParameterTierStandard && was.Tier == string(types.ParameterTierAdvanced):
		return validation("This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier.")
	}
	switch {
	case v.Tier == string(types.ParameterTierStandard) && len(value) > maxStandard:
		return validation("Standard tier parameters support a maximum parameter value of %d characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier.", maxStandard)
	case len(value) > maxAdvanced:
		return validation("Advanced tier parameters support a maximum parameter value of %d characters.", maxAdvanced)
	}
	if v.Type == string(types.ParameterTypeSecureString) {
		v.KeyId = defaultKey
	}
	if v.AllowedPattern != "" {
		pattern, err := regexp.Compile(`^(?:` + v.AllowedPattern + `)$`)
		if err != nil {
			return awserr.New("InvalidAllowedPatternException", "The request doesn't meet the regular expression requirement: %s", v.AllowedPattern)
		}
		if !pattern.MatchString(value) {
			return awserr.New("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", v.AllowedPattern)
		}
	}
	return nil
}

// prune makes room for one more version: the oldest one goes, unless it has a label.
func prune(tx *state.Tx, p *Parameter) error {
	n := 0
	var oldest *ParameterVersion
	for v := range Versions.Scan(tx, p.versions()) {
		if oldest == nil {
			oldest = v
		}
		n++
	}
	switch {
	case n < maxVersions:
		return nil
	case len(oldest.Labels) > 0:
		return awserr.New("ParameterMaxVersionLimitExceeded", "You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. "+
			"Version %d, the oldest version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and try again.", p.Name, oldest.Version)
	}
	Versions.Delete(tx, Versions.Key(oldest))
	return nil
}

// deleteParameter implements ssm:DeleteParameter.
func (f *Family) deleteParameter(ctx context.Context, in *ssm.DeleteParameterInput) (*ssm.DeleteParameterOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		p, err := find(tx, scope, aws.ToString(in.Name))
		if err != nil {
			return err
		}
		remove(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ssm.DeleteParameterOutput{}, nil
}

func remove(tx *state.Tx, p *Parameter) {
	Parameters.Delete(tx, Parameters.Key(p))
	controlplane.PutTags(tx, p.scope(), p.ARN(), nil)
}

// deleteParameters implements ssm:DeleteParameters: of at most ten.
func (f *Family) deleteParameters(ctx context.Context, in *ssm.DeleteParametersInput) (*ssm.DeleteParametersOutput, error) {
	var out *ssm.DeleteParametersOutput
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		out = &ssm.DeleteParametersOutput{}
		for _, name := range in.Names {
			p, err := find(tx, scope, name)
			switch {
			case slices.Contains(out.DeletedParameters, name): // named twice
			case err != nil:
				out.InvalidParameters = append(out.InvalidParameters, name)
			default:
				remove(tx, p)
				out.DeletedParameters = append(out.DeletedParameters, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
