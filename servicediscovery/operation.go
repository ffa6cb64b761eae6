package servicediscovery

import (
	"context"
	"iter"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// record notes an operation, in the transaction that does it.
func record(ctx context.Context, tx *state.Tx, scope controlplane.Scope, opID string, kind types.OperationType, targets map[string]string) {
	Operations.Put(tx, &Operation{Account: scope.Account, Region: scope.Region, Id: opID, Type: string(kind), Targets: targets, Created: timestamppb.New(api.CallFrom(ctx).Time)})
}

// getOperation implements servicediscovery:GetOperation.
func (f *Family) getOperation(ctx context.Context, in *sd.GetOperationInput) (*sd.GetOperationOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	o, ok := Operations.Get(v, scope.Key(aws.ToString(in.OperationId)))
	if !ok {
		return nil, awserr.New("OperationNotFound", "No operation with ID '%s' exists.", aws.ToString(in.OperationId))
	}
	at := aws.Time(o.Created.AsTime())
	return &sd.GetOperationOutput{Operation: &types.Operation{Id: &o.Id, Type: types.OperationType(o.Type), Status: types.OperationStatusSuccess,
		Targets: o.Targets, CreateDate: at, UpdateDate: at, OwnerAccount: &o.Account}}, nil
}

// listOperations implements servicediscovery:ListOperations. Every operation that is recorded has succeeded.
func (f *Family) listOperations(ctx context.Context, in *sd.ListOperationsInput) (*sd.ListOperationsOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	var keep []func(*Operation) bool
	for _, given := range in.Filters {
		allowed := []types.FilterCondition{types.FilterConditionEq}
		switch given.Name {
		case types.OperationFilterNameStatus, types.OperationFilterNameType:
			allowed = append(allowed, types.FilterConditionIn)
		case types.OperationFilterNameUpdateDate:
			allowed = []types.FilterCondition{types.FilterConditionBetween}
		}
		match, err := filter(string(given.Name), given.Condition, given.Values, allowed...)
		if err != nil {
			return nil, err
		}
		switch given.Name {
		case types.OperationFilterNameNamespaceId:
			keep = append(keep, func(o *Operation) bool { return match(o.Targets["NAMESPACE"]) })
		case types.OperationFilterNameServiceId:
			keep = append(keep, func(o *Operation) bool { return match(o.Targets["SERVICE"]) })
		case types.OperationFilterNameStatus: // the API reference has SUCCEED, the operations themselves SUCCESS
			keep = append(keep, func(*Operation) bool { return match("SUCCESS") || match("SUCCEED") })
		case types.OperationFilterNameType:
			keep = append(keep, func(o *Operation) bool { return match(o.Type) })
		case types.OperationFilterNameUpdateDate:
			keep = append(keep, func(o *Operation) bool {
				return match(strconv.FormatFloat(float64(o.Created.AsTime().UnixMilli())/1000, 'f', 3, 64))
			})
		default:
			return nil, invalid("Filter name '%s' is not valid", given.Name)
		}
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.MaxResults, 100, 100), func(after state.Key) iter.Seq[*Operation] {
		return filtered(Operations.ScanFrom(v, scope.Key(), after), keep)
	}, Operations.Key)
	if err != nil {
		return nil, err
	}
	out := &sd.ListOperationsOutput{Operations: []types.OperationSummary{}, NextToken: next}
	for _, o := range page {
		out.Operations = append(out.Operations, types.OperationSummary{Id: &o.Id, Status: types.OperationStatusSuccess})
	}
	return out, nil
}
