package wire

import (
	"encoding/json"
	"reflect"

	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	ecsdocument "github.com/aws/aws-sdk-go-v2/service/ecs/document"
	ecs "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	iam "github.com/aws/aws-sdk-go-v2/service/iam/types"
	ssm "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go/document"
)

// Go cannot list the types that implement an interface, so unions name their variants here. Compiling a plan fails when
// one of the model's is missing.
var unions = map[reflect.Type][]reflect.Type{
	reflect.TypeFor[ssm.CloudConnectorConfiguration](): {reflect.TypeFor[ssm.CloudConnectorConfigurationMemberAzureConfiguration]()},
	reflect.TypeFor[ssm.ConfigurationTargets]():        {reflect.TypeFor[ssm.ConfigurationTargetsMemberSubscriptions]()},
	reflect.TypeFor[ssm.ExecutionInputs]():             {reflect.TypeFor[ssm.ExecutionInputsMemberAutomation]()},
	reflect.TypeFor[ssm.ExecutionPreview]():            {reflect.TypeFor[ssm.ExecutionPreviewMemberAutomation]()},
	reflect.TypeFor[ssm.NodeType]():                    {reflect.TypeFor[ssm.NodeTypeMemberInstance]()},
	reflect.TypeFor[logs.IntegrationDetails]():         {reflect.TypeFor[logs.IntegrationDetailsMemberOpenSearchIntegrationDetails]()},
	reflect.TypeFor[logs.ResourceConfig]():             {reflect.TypeFor[logs.ResourceConfigMemberOpenSearchResourceConfig]()},

	reflect.TypeFor[ecs.DescribeGatewayConfiguration]():   {reflect.TypeFor[ecs.DescribeGatewayConfigurationMemberHostSharedAlb]()},
	reflect.TypeFor[ecs.GatewayConfiguration]():           {reflect.TypeFor[ecs.GatewayConfigurationMemberHostSharedAlb]()},
	reflect.TypeFor[ecs.GatewayConnectionResources]():     {reflect.TypeFor[ecs.GatewayConnectionResourcesMemberHostSharedAlb]()},
	reflect.TypeFor[ecs.GatewayElbAccessLogDestination](): {reflect.TypeFor[ecs.GatewayElbAccessLogDestinationMemberS3]()},
	reflect.TypeFor[ecs.GatewayInfrastructureResources](): {reflect.TypeFor[ecs.GatewayInfrastructureResourcesMemberHostSharedAlb]()},
	reflect.TypeFor[ecs.GatewayRouteResources]():          {reflect.TypeFor[ecs.GatewayRouteResourcesMemberHostSharedAlb]()},
	reflect.TypeFor[ecs.ServiceConnectContainerConfiguration](): {
		reflect.TypeFor[ecs.ServiceConnectContainerConfigurationMemberLogLevel](),
	},
	reflect.TypeFor[ecs.SharingStrategy]():            {reflect.TypeFor[ecs.SharingStrategyMemberNvidiaMps]()},
	reflect.TypeFor[ecs.UpdateGatewayConfiguration](): {reflect.TypeFor[ecs.UpdateGatewayConfigurationMemberHostSharedAlb]()},

	reflect.TypeFor[iam.PolicyIdentifier](): {
		reflect.TypeFor[iam.PolicyIdentifierMemberInlinePolicyIdentifier](),
		reflect.TypeFor[iam.PolicyIdentifierMemberPolicyArn](),
		reflect.TypeFor[iam.PolicyIdentifierMemberPolicyType](),
	},
}

// documents make a service's document from decoded JSON.
var documents = map[reflect.Type]func(any) any{
	reflect.TypeFor[ecsdocument.Interface](): func(v any) any { return ecsdocument.NewLazyDocument(v) },
}

// documentNumbers turns v's numbers into those the SDK's documents know, exactly.
func documentNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return document.Number(v)
	case []any:
		for i := range v {
			v[i] = documentNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = documentNumbers(v[k])
		}
	}
	return v
}

func appendDocument(b []byte, v any) []byte {
	d, ok := v.(document.Marshaler)
	if !ok {
		return append(b, "null"...)
	}
	text, err := d.MarshalSmithyDocument()
	if err != nil || !json.Valid(text) {
		return append(b, "null"...)
	}
	return append(b, text...)
}
