package wire

import (
	"encoding/json"
	"net/url"
	"reflect"
	"testing"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// FuzzDecodeJSON: whatever comes is decoded or refused in AWS's words. What is taken is JSON to encoding/json too, and
// comes back from our own encoder as it was.
func FuzzDecodeJSON(f *testing.F) {
	o, body := registerTaskDefinition(f)
	f.Add(body)
	for _, s := range []string{`{}`, `{"tags":[{"key":"\ud800"}]}`, `{"containerDefinitions":[{"cpu":1e2,"dockerLabels":{"a":"b"}}]}`, `{"x":[[{}]]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := o.DecodeJSON(body)
		if err != nil {
			if _, ok := awserr.As(err); !ok {
				t.Fatalf("not an AWS error: %v", err)
			}
			return
		}
		if trimmed := len(body) > 0 && !json.Valid(body); trimmed && !isBlank(body) {
			t.Fatalf("took what is not JSON: %q", body)
		}
		_ = o.Validate(v)
		again := o.AppendInput(nil, v)
		w, err := o.DecodeJSON(again)
		if err != nil {
			t.Fatalf("refused its own %s: %v", again, err)
		}
		if !reflect.DeepEqual(v, w) {
			t.Fatalf("%s\nbecame\n%s", body, again)
		}
	})
}

func isBlank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// FuzzDecodeQuery: the same for forms, in both dialects.
func FuzzDecodeQuery(f *testing.F) {
	rule := mustBind(f, "elasticloadbalancingv2", "CreateRule")
	vpcs := mustBind(f, "ec2", "DescribeVpcs")
	policy := mustBind(f, "iam", "SimulatePrincipalPolicy")
	f.Add("Actions.member.1.Type=forward&Actions.member.1.ForwardConfig.TargetGroups.member.1.Weight=1&Priority=3")
	f.Add("Filter.1.Name=vpc-id&Filter.1.Value.1=a&MaxResults=5")
	f.Add("Priority=x&..=&Tags=&Tags.member=")
	f.Fuzz(func(t *testing.T, text string) {
		form, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		for _, o := range []*Operation{rule, vpcs, policy} {
			v, err := o.DecodeQuery(form)
			if err != nil {
				if _, ok := awserr.As(err); !ok {
					t.Fatalf("not an AWS error: %v", err)
				}
				continue
			}
			_ = o.Validate(v)
		}
	})
}
