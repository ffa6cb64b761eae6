package servicediscovery

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// defaultSOATTL is Cloud Map's for a private namespace, in seconds.
const defaultSOATTL = 15

// makeNamespace creates n, whose name, type and description are set, and answers the operation's id.
func (f *Family) makeNamespace(ctx context.Context, n *Namespace, token *string, in any, given []types.Tag) (*string, error) {
	tags, err := tagSet(given)
	if err != nil {
		return nil, err
	}
	opID := id.UUID(f.Rand)
	n.Id, n.Created, n.CreatorRequest = "ns-"+id.Hex(f.Rand, 16), timestamppb.New(api.CallFrom(ctx).Time), aws.ToString(token)
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) (err error) {
		opID, err = once(ctx, tx, scope, token, in, func() (string, error) {
			for old := range Namespaces.Scan(tx, scope.Key()) {
				if strings.EqualFold(old.Name, n.Name) {
					return "", &awserr.Error{Code: "NamespaceAlreadyExists", Message: "A namespace with name '" + n.Name + "' already exists.",
						Fields: map[string]any{"NamespaceId": old.Id, "CreatorRequestId": old.CreatorRequest}}
				}
			}
			n.Account, n.Region = scope.Account, scope.Region
			Namespaces.Put(tx, n)
			controlplane.PutTags(tx, scope, n.ARN(), tags)
			record(ctx, tx, scope, opID, types.OperationTypeCreateNamespace, map[string]string{"NAMESPACE": n.Id})
			return opID, nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &opID, nil
}

// createPrivateDNSNamespace implements servicediscovery:CreatePrivateDnsNamespace.
func (f *Family) createPrivateDNSNamespace(ctx context.Context, in *sd.CreatePrivateDnsNamespaceInput) (*sd.CreatePrivateDnsNamespaceOutput, error) {
	c := api.CallFrom(ctx)
	if !f.VPCExists(c.Account, c.Region, aws.ToString(in.Vpc)) {
		return nil, invalid("The VPC '%s' does not exist", aws.ToString(in.Vpc))
	}
	n := &Namespace{Name: strings.TrimSuffix(aws.ToString(in.Name), "."), Type: "DNS_PRIVATE", Description: aws.ToString(in.Description)}
	if !validDomain(n.Name) {
		return nil, invalid("The name '%s' is not a valid domain name", aws.ToString(in.Name))
	}
	if p := in.Properties; p != nil && p.DnsProperties != nil && p.DnsProperties.SOA != nil {
		n.SoaTtl = uint64(aws.ToInt64(p.DnsProperties.SOA.TTL))
	}
	request := *in
	request.CreatorRequestId = nil
	op, err := f.makeNamespace(ctx, n, in.CreatorRequestId, request, in.Tags)
	if err != nil {
		return nil, err
	}
	return &sd.CreatePrivateDnsNamespaceOutput{OperationId: op}, nil
}

// createHTTPNamespace implements servicediscovery:CreateHttpNamespace.
func (f *Family) createHTTPNamespace(ctx context.Context, in *sd.CreateHttpNamespaceInput) (*sd.CreateHttpNamespaceOutput, error) {
	request := *in
	request.CreatorRequestId = nil
	n := &Namespace{Name: aws.ToString(in.Name), Type: "HTTP", Description: aws.ToString(in.Description)}
	op, err := f.makeNamespace(ctx, n, in.CreatorRequestId, request, in.Tags)
	if err != nil {
		return nil, err
	}
	return &sd.CreateHttpNamespaceOutput{OperationId: op}, nil
}

// validDomain says whether a DNS server can answer for name.
func validDomain(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return len(name) <= 253
}

// notInLabel: what is not printable, or would mean something in a zone file.
func notInLabel(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\"();@$`, r) }

func renderNamespace(r state.Reader, n *Namespace) *types.Namespace {
	p := &types.NamespaceProperties{HttpProperties: &types.HttpProperties{HttpName: &n.Name}}
	if n.Type == "DNS_PRIVATE" {
		ttl := n.SoaTtl
		if ttl == 0 {
			ttl = defaultSOATTL
		}
		p.DnsProperties = &types.DnsProperties{HostedZoneId: aws.String("Z" + strings.ToUpper(n.Id[3:])), SOA: &types.SOA{TTL: aws.Int64(int64(ttl))}}
	}
	count := int32(0)
	for range Services.Scan(r, state.K(n.Account, n.Region, n.Id)) {
		count++
	}
	out := &types.Namespace{Id: &n.Id, Arn: aws.String(n.ARN()), Name: &n.Name, Type: types.NamespaceType(n.Type), ResourceOwner: &n.Account,
		CreateDate: aws.Time(n.Created.AsTime()), Properties: p, ServiceCount: &count, Description: text(n.Description), CreatorRequestId: text(n.CreatorRequest)}
	return out
}

// text is a member that is absent when nothing was given.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// getNamespace implements servicediscovery:GetNamespace.
func (f *Family) getNamespace(ctx context.Context, in *sd.GetNamespaceInput) (*sd.GetNamespaceOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNamespace(v, scope, in.Id)
	if err != nil {
		return nil, err
	}
	return &sd.GetNamespaceOutput{Namespace: renderNamespace(v, n)}, nil
}

// listNamespaces implements servicediscovery:ListNamespaces.
func (f *Family) listNamespaces(ctx context.Context, in *sd.ListNamespacesInput) (*sd.ListNamespacesOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	var keep []func(*Namespace) bool
	for _, given := range in.Filters {
		match, err := filter(string(given.Name), given.Condition, given.Values, types.FilterConditionEq, types.FilterConditionBeginsWith)
		if err != nil {
			return nil, err
		}
		switch given.Name {
		case types.NamespaceFilterNameType:
			keep = append(keep, func(n *Namespace) bool { return match(n.Type) })
		case types.NamespaceFilterNameName, types.NamespaceFilterNameHttpName:
			keep = append(keep, func(n *Namespace) bool { return match(n.Name) })
		case types.NamespaceFilterNameResourceOwner:
			keep = append(keep, func(*Namespace) bool { return match("SELF") }) // namespaces are not shared
		default:
			return nil, invalid("Filter name '%s' is not valid", given.Name)
		}
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 100, 100), func(after state.Key) iter.Seq[*Namespace] {
		return filtered(Namespaces.ScanFrom(v, scope.Key(), after), keep)
	}, Namespaces.Key)
	if err != nil {
		return nil, err
	}
	out := &sd.ListNamespacesOutput{Namespaces: []types.NamespaceSummary{}, NextToken: next}
	for _, n := range page {
		r := renderNamespace(v, n)
		out.Namespaces = append(out.Namespaces, types.NamespaceSummary{Id: r.Id, Arn: r.Arn, Name: r.Name, Type: r.Type, Description: r.Description,
			CreateDate: r.CreateDate, Properties: r.Properties, ResourceOwner: r.ResourceOwner, ServiceCount: r.ServiceCount})
	}
	return out, nil
}

// changeNamespace applies change to a namespace of the type.
func (f *Family) changeNamespace(ctx context.Context, text *string, kind string, token *string, in any, change func(*Namespace)) (*string, error) {
	opID := id.UUID(f.Rand)
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) (err error) {
		opID, err = once(ctx, tx, scope, token, in, func() (string, error) {
			old, err := findNamespace(tx, scope, text)
			if err != nil {
				return "", err
			}
			if old.Type != kind {
				return "", invalid("The namespace '%s' is of type %s", old.Id, old.Type)
			}
			n := proto.Clone(old).(*Namespace)
			change(n)
			Namespaces.Put(tx, n)
			record(ctx, tx, scope, opID, types.OperationTypeUpdateNamespace, map[string]string{"NAMESPACE": n.Id})
			return opID, nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &opID, nil
}

// updateHTTPNamespace implements servicediscovery:UpdateHttpNamespace.
func (f *Family) updateHTTPNamespace(ctx context.Context, in *sd.UpdateHttpNamespaceInput) (*sd.UpdateHttpNamespaceOutput, error) {
	request := *in
	request.UpdaterRequestId = nil
	op, err := f.changeNamespace(ctx, in.Id, "HTTP", in.UpdaterRequestId, request, func(n *Namespace) { n.Description = aws.ToString(in.Namespace.Description) })
	if err != nil {
		return nil, err
	}
	return &sd.UpdateHttpNamespaceOutput{OperationId: op}, nil
}

// updatePrivateDNSNamespace implements servicediscovery:UpdatePrivateDnsNamespace.
func (f *Family) updatePrivateDNSNamespace(ctx context.Context, in *sd.UpdatePrivateDnsNamespaceInput) (*sd.UpdatePrivateDnsNamespaceOutput, error) {
	request := *in
	request.UpdaterRequestId = nil
	op, err := f.changeNamespace(ctx, in.Id, "DNS_PRIVATE", in.UpdaterRequestId, request, func(n *Namespace) {
		if in.Namespace.Description != nil {
			n.Description = *in.Namespace.Description
		}
		if p := in.Namespace.Properties; p != nil && p.DnsProperties != nil && p.DnsProperties.SOA != nil {
			n.SoaTtl = uint64(aws.ToInt64(p.DnsProperties.SOA.TTL))
		}
	})
	if err != nil {
		return nil, err
	}
	return &sd.UpdatePrivateDnsNamespaceOutput{OperationId: op}, nil
}

// deleteNamespace implements servicediscovery:DeleteNamespace.
func (f *Family) deleteNamespace(ctx context.Context, in *sd.DeleteNamespaceInput) (*sd.DeleteNamespaceOutput, error) {
	opID := id.UUID(f.Rand)
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		n, err := findNamespace(tx, scope, in.Id)
		if err != nil {
			return err
		}
		for range Services.Scan(tx, scope.Key(n.Id)) {
			return awserr.New("ResourceInUse", "Namespace has associated services.")
		}
		Namespaces.Delete(tx, Namespaces.Key(n))
		controlplane.PutTags(tx, scope, n.ARN(), nil)
		record(ctx, tx, scope, opID, types.OperationTypeDeleteNamespace, map[string]string{"NAMESPACE": n.Id})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.DeleteNamespaceOutput{OperationId: &opID}, nil
}
