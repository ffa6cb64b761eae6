package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxDestinations is how many different destinations a replication configuration may have, over all its rules.
const maxDestinations = 25

// putReplicationConfiguration implements ecr:PutReplicationConfiguration. It concerns what is pushed from now on.
func (r *Registry) putReplicationConfiguration(ctx context.Context, in *ecr.PutReplicationConfigurationInput) (*ecr.PutReplicationConfigurationOutput, error) {
	c := api.CallFrom(ctx)
	type place struct{ account, region string }
	places := map[place]bool{}
	for _, rule := range in.ReplicationConfiguration.Rules {
		for _, d := range rule.Destinations {
			p := place{value(d.RegistryId), value(d.Region)}
			switch {
			case p.account != c.Account:
				return nil, awserr.WithStatus(501, "NotImplemented", "Replication to the registry of another account (%s) is not implemented: registry policies are not evaluated.", p.account)
			case p.region == c.Region:
				return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'a registry cannot be its own destination (%s in %s)'", p.account, p.region)
			}
			places[p] = true
		}
	}
	if len(places) > maxDestinations {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'at most %d destinations, not %d'", maxDestinations, len(places))
	}
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		s.ReplicationJson = controlplane.EncodeShape(*in.ReplicationConfiguration)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutReplicationConfigurationOutput{ReplicationConfiguration: in.ReplicationConfiguration}, nil
}

// describeRegistry implements ecr:DescribeRegistry.
func (r *Registry) describeRegistry(ctx context.Context, _ *ecr.DescribeRegistryInput) (*ecr.DescribeRegistryOutput, error) {
	c := api.CallFrom(ctx)
	configuration := &types.ReplicationConfiguration{}
	if text := registryRecord(r.Store.View(), c.Account, c.Region).ReplicationJson; text != "" {
		*configuration = controlplane.DecodeShape[types.ReplicationConfiguration](text)
	}
	if configuration.Rules == nil {
		configuration.Rules = []types.ReplicationRule{}
	}
	return &ecr.DescribeRegistryOutput{RegistryId: new(c.Account), ReplicationConfiguration: configuration}, nil
}

// describeImageReplicationStatus implements ecr:DescribeImageReplicationStatus.
func (r *Registry) describeImageReplicationStatus(ctx context.Context, in *ecr.DescribeImageReplicationStatusInput) (*ecr.DescribeImageReplicationStatusOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	m, err := r.identified(repo, in.ImageId)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImageReplicationStatusOutput{ImageId: in.ImageId, ReplicationStatuses: []types.ImageReplicationStatus{}, RepositoryName: in.RepositoryName}
	for e := range Replications.Scan(r.Store.View(), Manifests.Key(m)) {
		s := types.ImageReplicationStatus{Region: new(e.ToRegion), RegistryId: new(e.ToAccount), Status: types.ReplicationStatus(e.Status)}
		if e.FailureCode != "" {
			s.FailureCode = new(e.FailureCode)
		}
		out.ReplicationStatuses = append(out.ReplicationStatuses, s)
	}
	return out, nil
}

func registryPolicyNotFound(account string) error {
	return awserr.New("RegistryPolicyNotFoundException", "Registry policy does not exist in the registry with id '%s'", account)
}

// putRegistryPolicy implements ecr:PutRegistryPolicy. The policy is kept and shown; nothing is held against it yet, and so nobody
// of another account is let in.
func (r *Registry) putRegistryPolicy(ctx context.Context, in *ecr.PutRegistryPolicyInput) (*ecr.PutRegistryPolicyOutput, error) {
	if err := checkRegistryPolicy(value(in.PolicyText)); err != nil {
		return nil, err
	}
	c := api.CallFrom(ctx)
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		s.PolicyText = *in.PolicyText
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryPolicyOutput{PolicyText: in.PolicyText, RegistryId: new(c.Account)}, nil
}

// getRegistryPolicy implements ecr:GetRegistryPolicy.
func (r *Registry) getRegistryPolicy(ctx context.Context, _ *ecr.GetRegistryPolicyInput) (*ecr.GetRegistryPolicyOutput, error) {
	c := api.CallFrom(ctx)
	text := registryRecord(r.Store.View(), c.Account, c.Region).PolicyText
	if text == "" {
		return nil, registryPolicyNotFound(c.Account)
	}
	return &ecr.GetRegistryPolicyOutput{PolicyText: &text, RegistryId: new(c.Account)}, nil
}

// deleteRegistryPolicy implements ecr:DeleteRegistryPolicy.
func (r *Registry) deleteRegistryPolicy(ctx context.Context, _ *ecr.DeleteRegistryPolicyInput) (*ecr.DeleteRegistryPolicyOutput, error) {
	c := api.CallFrom(ctx)
	var text string
	err := r.changeRegistry(ctx, c.Account, c.Region, func(s *RegistrySettings) error {
		if text = s.PolicyText; text == "" {
			return registryPolicyNotFound(c.Account)
		}
		s.PolicyText = ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRegistryPolicyOutput{PolicyText: &text, RegistryId: new(c.Account)}, nil
}

// checkRegistryPolicy refuses what is no policy document on ECR's actions. ECR's own words are only the first part.
func checkRegistryPolicy(text string) error {
	invalid := func(why string) error {
		return awserr.New("InvalidParameterException", "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided: %s'", why)
	}
	var p struct {
		Version   string
		ID        *string `json:"Id"`
		Statement json.RawMessage
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || d.More() {
		return invalid("not a JSON object of Version, Id and Statement")
	}
	if p.Version != "" && p.Version != "2012-10-17" && p.Version != "2008-10-17" {
		return invalid("Version is 2012-10-17 or 2008-10-17")
	}
	type statement struct {
		Sid                     *string
		Effect                  string
		Principal, NotPrincipal json.RawMessage
		Action, NotAction       json.RawMessage
		Resource, NotResource   json.RawMessage
		Condition               map[string]map[string]any
	}
	var list []statement
	s := json.NewDecoder(bytes.NewReader(p.Statement))
	s.DisallowUnknownFields()
	if bytes.HasPrefix(bytes.TrimSpace(p.Statement), []byte("{")) {
		list = make([]statement, 1)
		if err := s.Decode(&list[0]); err != nil {
			return invalid("Statement: " + err.Error())
		}
	} else if err := s.Decode(&list); err != nil {
		return invalid("Statement is a statement or a list of them")
	}
	if len(list) == 0 {
		return invalid("there is no statement")
	}
	for _, st := range list {
		if st.Effect != "Allow" && st.Effect != "Deny" {
			return invalid("Effect is Allow or Deny")
		}
		if (st.Principal == nil) == (st.NotPrincipal == nil) {
			return invalid("a statement has a Principal")
		}
		if (st.Action == nil) == (st.NotAction == nil) {
			return invalid("a statement has an Action")
		}
		for _, raw := range []json.RawMessage{st.Action, st.NotAction} {
			actions, ok := oneOrMany(raw)
			if !ok {
				return invalid("Action is an action or a list of them")
			}
			for _, a := range actions {
				if a != "*" && !strings.HasPrefix(strings.ToLower(a), "ecr:") {
					return invalid("the action " + a + " is none of ecr")
				}
			}
		}
	}
	return nil
}

// oneOrMany reads a string or a list of strings; nothing is fine too.
func oneOrMany(raw json.RawMessage) ([]string, bool) {
	var one string
	var many []string
	switch {
	case raw == nil:
		return nil, true
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}, true
	}
	err := json.Unmarshal(raw, &many)
	return many, err == nil && len(many) > 0
}
