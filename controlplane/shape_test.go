package controlplane

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// What a newer build has written into a shape outlives its being read, changed and written by this one.
func TestUnknownMembersOfShapesAreKept(t *testing.T) {
	for name, c := range map[string]struct{ old, want string }{
		"none":        {"", `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150}`},
		"known":       {`{"maximumPercent":100,"deploymentCircuitBreaker":{"enable":true}}`, `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150}`},
		"at the top":  {`{"newer":{"a":[1]}}`, `{"deploymentCircuitBreaker":{"enable":true},"maximumPercent":150,"newer":{"a":[1]}}`},
		"in a member": {`{"deploymentCircuitBreaker":{"rollback":true,"newer":"x"}}`, `{"deploymentCircuitBreaker":{"enable":true,"newer":"x","rollback":true},"maximumPercent":150}`},
	} {
		shape := DecodeShape[types.DeploymentConfiguration](c.old)
		shape.MaximumPercent = aws.Int32(150)
		if shape.DeploymentCircuitBreaker == nil {
			shape.DeploymentCircuitBreaker = &types.DeploymentCircuitBreaker{}
		}
		shape.DeploymentCircuitBreaker.Enable = true
		if got := EncodeShapeOver(c.old, shape); got != c.want {
			t.Errorf("%s: got %s\nwant %s", name, got, c.want)
		}
	}
}
