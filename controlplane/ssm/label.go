package ssm

import (
	"context"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

const maxLabels = 10 // of a version

var (
	labelName   = regexp.MustCompile(`^[a-zA-Z_.-][a-zA-Z0-9_.-]{0,99}$`)
	systemLabel = regexp.MustCompile(`(?i)^(?:aws|ssm)`)
)

// labelParameterVersion implements ssm:LabelParameterVersion. A label that another version has moves.
func (f *Family) labelParameterVersion(ctx context.Context, in *ssm.LabelParameterVersionInput) (*ssm.LabelParameterVersionOutput, error) {
	var out *ssm.LabelParameterVersionOutput
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		out = &ssm.LabelParameterVersionOutput{InvalidLabels: []string{}}
		var good []string
		for _, l := range in.Labels {
			if !labelName.MatchString(l) || systemLabel.MatchString(l) {
				out.InvalidLabels = append(out.InvalidLabels, l)
			} else if !slices.Contains(good, l) {
				good = append(good, l)
			}
		}
		p, v, err := versionOf(tx, scope, in.Name, in.ParameterVersion)
		if err != nil {
			return err
		}
		out.ParameterVersion = v.Version
		for other := range Versions.Scan(tx, p.versions()) {
			if other.Version != v.Version {
				unlabel(tx, other, good)
			}
		}
		n := proto.CloneOf(v)
		for _, l := range good {
			if !slices.Contains(n.Labels, l) {
				n.Labels = append(n.Labels, l)
			}
		}
		if len(n.Labels) > maxLabels {
			return awserr.New("ParameterVersionLabelLimitExceeded", "A parameter version can have maximum %d labels. Move one or more labels to another version and try again.", maxLabels)
		}
		Versions.Put(tx, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// versionOf is the named version of a parameter, the newest one without a number.
func versionOf(r state.Reader, scope controlplane.Scope, name *string, version *int64) (*Parameter, *ParameterVersion, error) {
	p, err := find(r, scope, aws.ToString(name))
	if err != nil {
		return nil, nil, err
	}
	wanted := p.Version
	if version != nil {
		wanted = *version
	}
	v, ok := p.at(r, wanted)
	if !ok {
		return nil, nil, noVersion(p.Name, wanted)
	}
	return p, v, nil
}

// unlabel takes labels from a version, those that it has.
func unlabel(tx *state.Tx, v *ParameterVersion, labels []string) (taken []string) {
	n := proto.CloneOf(v)
	n.Labels = slices.DeleteFunc(n.Labels, func(l string) bool {
		if !slices.Contains(labels, l) {
			return false
		}
		taken = append(taken, l)
		return true
	})
	if len(taken) > 0 {
		Versions.Put(tx, n)
	}
	return taken
}

// unlabelParameterVersion implements ssm:UnlabelParameterVersion.
func (f *Family) unlabelParameterVersion(ctx context.Context, in *ssm.UnlabelParameterVersionInput) (*ssm.UnlabelParameterVersionOutput, error) {
	var out *ssm.UnlabelParameterVersionOutput
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		_, v, err := versionOf(tx, scope, in.Name, in.ParameterVersion)
		if err != nil {
			return err
		}
		out = &ssm.UnlabelParameterVersionOutput{RemovedLabels: unlabel(tx, v, in.Labels), InvalidLabels: []string{}}
		for _, l := range in.Labels {
			if !slices.Contains(out.RemovedLabels, l) {
				out.InvalidLabels = append(out.InvalidLabels, l)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
