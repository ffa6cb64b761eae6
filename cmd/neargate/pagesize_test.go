package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/wire"
)

// TestPageSizesAreBounded: no listing of any family takes more items at a time than AWS documents, or fewer than none, for another number; it says so and names the
// member, by its model or, where that has no bounds, itself.
func TestPageSizesAreBounded(t *testing.T) {
	control, _ := startControlPlane(t)
	tried := 0
	for _, o := range control.operations {
		f, ok := o.In.FieldByNameFunc(func(name string) bool {
			return slices.Contains([]string{"MaxResults", "MaxItems", "PageSize", "Limit"}, name)
		})
		if !ok {
			continue
		}
		codec, err := wire.New(o.Service)
		if err != nil {
			t.Fatal(err)
		}
		bound, err := codec.Bind(o.Name, o.In, o.Out)
		if err == nil {
			err = bound.Prepare()
		}
		if err != nil {
			t.Fatal(err)
		}
		tried++
		for _, n := range []int64{-1, 1 << 20} {
			in := reflect.New(o.In)
			if name := in.Elem().FieldByName("RepositoryName"); name.IsValid() { // ECR tells of one fault at a time
				name.Set(reflect.ValueOf(aws.String("some")))
			}
			switch in := in.Interface().(type) {
			case *ecr.DescribeImageScanFindingsInput:
				in.ImageId = &types.ImageIdentifier{}
			case *ecr.ListImageReferrersInput:
				in.SubjectId = &types.SubjectIdentifier{ImageDigest: aws.String("sha256:" + strings.Repeat("0", 64))}
			}
			size := in.Elem().FieldByIndex(f.Index)
			if size.Kind() == reflect.Pointer {
				size.Set(reflect.New(size.Type().Elem()))
				size = size.Elem()
			}
			size.SetInt(n)
			err := bound.Validate(in.Interface())
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(f.Name)) {
				ctx := api.WithCall(t.Context(), &api.Call{Identity: api.Identity{Account: "000000000000", ARN: "arn:aws:iam::000000000000:root"}, Region: "us-east-1", Service: o.Service, Operation: o.Name, Time: time.Now()})
				_, err = o.Call(ctx, in.Interface())
			}
			if text := strings.ToLower(fmt.Sprint(err)); !strings.Contains(text, strings.ToLower(f.Name)) {
				t.Errorf("%s %s with %s %d: %v", o.Service, o.Name, f.Name, n, err)
			}
		}
	}
	if tried < 60 {
		t.Errorf("only %d listings were tried", tried)
	}
}
