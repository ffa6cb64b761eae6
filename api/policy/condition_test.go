package policy_test

import (
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/api/policy"
)

// keys are a request's condition keys, in lower case; several values are separated by "|". "EMPTY" is a key without any.
type keys map[string]string

func (k keys) value(name string) ([]string, bool) {
	v, ok := k[name]
	if v == "EMPTY" {
		return nil, ok
	}
	return strings.Split(v, "|"), ok
}

// holds says whether a statement with this condition applies.
func holds(t *testing.T, condition string, k keys) bool {
	t.Helper()
	p, err := policy.Parse(policy.Identity, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}}`)
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
	return p.Evaluate(&policy.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::bucket/key", Key: k.value}) == policy.Allow
}

// The pages of the IAM User Guide that cases come from.
const (
	operatorsPage = "reference_policies_elements_condition_operators.html"
	multiplePage  = "reference_policies_condition-logic-multiple-context-keys-or-values.html"
	setsPage      = "reference_policies_condition-single-vs-multi-valued-context-keys.html"
	setsTutorial  = "reference_policies_condition-logic-set-operators.html"
	variablesPage = "reference_policies_variables.html"
)

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		page, condition string
		keys            keys
		want            bool
	}{
		// Strings: case counts, wildcards only with Like.
		{operatorsPage, `{"StringEquals":{"aws:PrincipalTag/job-category":"iamuser-admin"}}`, keys{"aws:principaltag/job-category": "iamuser-admin"}, true},
		{operatorsPage, `{"StringEquals":{"aws:PrincipalTag/job-category":"iamuser-admin"}}`, keys{"aws:principaltag/job-category": "iamuser-Admin"}, false},
		{operatorsPage, `{"StringEquals":{"aws:PrincipalTag/job-category":"iamuser-admin"}}`, keys{}, false},
		{operatorsPage, `{"StringEquals":{"aws:UserAgent":"Example*"}}`, keys{"aws:useragent": "Example 1"}, false},
		{operatorsPage, `{"StringLike":{"s3:prefix":["","home/","home/${aws:username}/"]}}`, keys{"s3:prefix": "home/bob/", "aws:username": "bob"}, true},
		{operatorsPage, `{"StringLike":{"s3:prefix":["","home/","home/${aws:username}/"]}}`, keys{"s3:prefix": "home/eve/", "aws:username": "bob"}, false},
		{operatorsPage, `{"StringLike":{"s3:prefix":["","home/"]}}`, keys{"s3:prefix": ""}, true},
		{operatorsPage, `{"StringLike":{"aws:PrincipalTag/department":"fin*ce??"}}`, keys{"aws:principaltag/department": "finance01"}, true},
		{operatorsPage, `{"StringNotEquals":{"aws:PrincipalTag/job-category":"hr"}}`, keys{"aws:principaltag/job-category": "it"}, true},
		{operatorsPage, `{"StringNotEquals":{"aws:PrincipalTag/job-category":["hr","it"]}}`, keys{"aws:principaltag/job-category": "it"}, false},
		{operatorsPage, `{"StringNotEquals":{"aws:PrincipalTag/job-category":"hr"}}`, keys{}, true},
		{operatorsPage, `{"StringNotLike":{"aws:PrincipalTag/job-category":"h*"}}`, keys{"aws:principaltag/job-category": "hr"}, false},
		{operatorsPage, `{"StringEqualsIgnoreCase":{"aws:PrincipalTag/department":"Finance"}}`, keys{"aws:principaltag/department": "fINANCE"}, true},
		{operatorsPage, `{"StringNotEqualsIgnoreCase":{"aws:PrincipalTag/department":"Finance"}}`, keys{"aws:principaltag/department": "fINANCE"}, false},
		// The name of a key has no case.
		{operatorsPage, `{"StringEquals":{"AWS:sourceVPC":"vpc-1"}}`, keys{"aws:sourcevpc": "vpc-1"}, true},
		// Numbers.
		{operatorsPage, `{"NumericLessThanEquals":{"s3:max-keys":"10"}}`, keys{"s3:max-keys": "10"}, true},
		{operatorsPage, `{"NumericLessThanEquals":{"s3:max-keys":10}}`, keys{"s3:max-keys": "11"}, false},
		{operatorsPage, `{"NumericGreaterThan":{"s3:max-keys":"9.5"}}`, keys{"s3:max-keys": "10"}, true},
		{operatorsPage, `{"NumericGreaterThanEquals":{"s3:max-keys":"10"}}`, keys{"s3:max-keys": "9"}, false},
		{operatorsPage, `{"NumericLessThan":{"s3:max-keys":"10"}}`, keys{"s3:max-keys": "9"}, true},
		{operatorsPage, `{"NumericEquals":{"s3:max-keys":"10"}}`, keys{"s3:max-keys": "10.0"}, true},
		{operatorsPage, `{"NumericEquals":{"s3:max-keys":"10"}}`, keys{"s3:max-keys": "ten"}, false},
		{operatorsPage, `{"NumericNotEquals":{"s3:max-keys":"10"}}`, keys{}, true},
		// Dates: ISO 8601 or seconds.
		{operatorsPage, `{"DateGreaterThan":{"aws:TokenIssueTime":"2020-01-01T00:00:01Z"}}`, keys{"aws:tokenissuetime": "2020-01-01T00:00:02Z"}, true},
		{operatorsPage, `{"DateGreaterThan":{"aws:TokenIssueTime":"2020-01-01T00:00:01Z"}}`, keys{"aws:tokenissuetime": "2020-01-01T00:00:01Z"}, false},
		{operatorsPage, `{"DateLessThan":{"aws:CurrentTime":"2020-01-01"}}`, keys{"aws:currenttime": "2019-12-31T23:59:59Z"}, true},
		{operatorsPage, `{"DateLessThanEquals":{"aws:EpochTime":"1577836800"}}`, keys{"aws:epochtime": "1577836800"}, true},
		{operatorsPage, `{"DateGreaterThanEquals":{"aws:EpochTime":"2020-01-01T00:00:00Z"}}`, keys{"aws:epochtime": "1577836799"}, false},
		{operatorsPage, `{"DateEquals":{"aws:CurrentTime":"2020-01-01T01:00:00+01:00"}}`, keys{"aws:currenttime": "2020-01-01T00:00:00Z"}, true},
		{operatorsPage, `{"DateNotEquals":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}`, keys{"aws:currenttime": "2020-01-01T00:00:00Z"}, false},
		// Booleans.
		{operatorsPage, `{"Bool":{"aws:SecureTransport":"false"}}`, keys{"aws:securetransport": "false"}, true},
		{operatorsPage, `{"Bool":{"aws:SecureTransport":true}}`, keys{"aws:securetransport": "true"}, true},
		{operatorsPage, `{"Bool":{"aws:SecureTransport":"true"}}`, keys{"aws:securetransport": "false"}, false},
		{operatorsPage, `{"Bool":{"aws:ViaAWSService":"true"}}`, keys{}, false},
		// Binary.
		{operatorsPage, `{"BinaryEquals":{"key:blob":"QmluYXJ5VmFsdWVJbkJhc2U2NA=="}}`, keys{"key:blob": "QmluYXJ5VmFsdWVJbkJhc2U2NA=="}, true},
		{operatorsPage, `{"BinaryEquals":{"key:blob":"QmluYXJ5VmFsdWVJbkJhc2U2NA=="}}`, keys{"key:blob": "QmluYXJ5"}, false},
		// Addresses.
		{operatorsPage, `{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`, keys{"aws:sourceip": "203.0.113.255"}, true},
		{operatorsPage, `{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`, keys{"aws:sourceip": "203.0.114.0"}, false},
		{operatorsPage, `{"IpAddress":{"aws:SourceIp":["203.0.113.0/24","2001:DB8:1234:5678::/64"]}}`, keys{"aws:sourceip": "2001:db8:1234:5678::1"}, true},
		{operatorsPage, `{"IpAddress":{"aws:SourceIp":"203.0.113.7"}}`, keys{"aws:sourceip": "203.0.113.7"}, true},
		{operatorsPage, `{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.113.0/24"]}}`, keys{"aws:sourceip": "203.0.113.7"}, false},
		{operatorsPage, `{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.113.0/24"]}}`, keys{"aws:sourceip": "198.51.100.1"}, true},
		// ARNs: each part by itself.
		{operatorsPage, `{"ArnEquals":{"aws:SourceArn":"arn:aws:sns:REGION:123456789012:TOPIC-ID"}}`, keys{"aws:sourcearn": "arn:aws:sns:REGION:123456789012:TOPIC-ID"}, true},
		{operatorsPage, `{"ArnLike":{"aws:SourceArn":"arn:aws:sns:*:123456789012:*"}}`, keys{"aws:sourcearn": "arn:aws:sns:eu-west-1:123456789012:a:b"}, true},
		{operatorsPage, `{"ArnLike":{"aws:SourceArn":"arn:aws:sns:*"}}`, keys{"aws:sourcearn": "arn:aws:sns:eu-west-1:123456789012:topic"}, true},
		{operatorsPage, `{"ArnLike":{"aws:SourceArn":"arn:aws:s*s:*"}}`, keys{"aws:sourcearn": "arn:aws:sqs:eu-west-1:123456789012:queue"}, true},
		{operatorsPage, `{"ArnLike":{"aws:SourceArn":"arn:*:sns:*:*:topic"}}`, keys{"aws:sourcearn": "arn:aws:x:sns:eu-west-1:topic"}, false},
		{operatorsPage, `{"ArnEquals":{"aws:SourceArn":"arn:aws:sns:*:*:t?pic"}}`, keys{"aws:sourcearn": "arn:aws:sns:eu-west-1:123456789012:topic"}, true},
		{operatorsPage, `{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/${aws:username}*"}}`, keys{"aws:principalarn": "arn:aws:iam::123456789012:role/bob-1", "aws:username": "bob"}, false},
		{operatorsPage, `{"ArnNotEquals":{"aws:SourceArn":"arn:aws:sns:*:*:topic"}}`, keys{"aws:sourcearn": "no ARN"}, true},
		// IfExists.
		{operatorsPage, `{"StringLikeIfExists":{"ec2:InstanceType":["t1.*","m3.*"]}}`, keys{}, true},
		{operatorsPage, `{"StringLikeIfExists":{"ec2:InstanceType":["t1.*","m3.*"]}}`, keys{"ec2:instancetype": "m3.large"}, true},
		{operatorsPage, `{"StringLikeIfExists":{"ec2:InstanceType":["t1.*","m3.*"]}}`, keys{"ec2:instancetype": "c5.large"}, false},
		{operatorsPage, `{"StringNotEqualsIfExists":{"aws:PrincipalTag/a":"b"}}`, keys{"aws:principaltag/a": "b"}, false},
		// Null.
		{operatorsPage, `{"Null":{"aws:TokenIssueTime":"true"}}`, keys{}, true},
		{operatorsPage, `{"Null":{"aws:TokenIssueTime":"true"}}`, keys{"aws:tokenissuetime": "x"}, false},
		{operatorsPage, `{"Null":{"aws:TokenIssueTime":false}}`, keys{"aws:tokenissuetime": "x"}, true},
		{operatorsPage, `{"Null":{"aws:TagKeys":"false"}}`, keys{"aws:tagkeys": "EMPTY"}, false},
		// Several operators and keys: all of them; several values: any.
		{multiplePage, `{"StringEquals":{"aws:PrincipalTag/department":["finance","hr","legal"],"aws:PrincipalTag/role":["audit","security"]},"ArnLike":{"aws:PrincipalArn":["arn:aws:iam::222222222222:user/Ana","arn:aws:iam::222222222222:user/Mary"]}}`,
			keys{"aws:principaltag/department": "hr", "aws:principaltag/role": "audit", "aws:principalarn": "arn:aws:iam::222222222222:user/Mary"}, true},
		{multiplePage, `{"StringEquals":{"aws:PrincipalTag/department":["finance","hr","legal"],"aws:PrincipalTag/role":["audit","security"]},"ArnLike":{"aws:PrincipalArn":["arn:aws:iam::222222222222:user/Ana","arn:aws:iam::222222222222:user/Mary"]}}`,
			keys{"aws:principaltag/department": "hr", "aws:principaltag/role": "pm", "aws:principalarn": "arn:aws:iam::222222222222:user/Mary"}, false},
		{multiplePage, `{"ForAnyValue:StringNotEquals":{"aws:TagKeys":["a","b"]},"StringNotEquals":{"aws:PrincipalTag/x":["1","2"]}}`, keys{"aws:tagkeys": "a|c", "aws:principaltag/x": "2"}, false},
		// Sets.
		{setsTutorial, `{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}`, keys{"aws:tagkeys": "environment"}, true},
		{setsTutorial, `{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}`, keys{"aws:tagkeys": "environment|cost-center"}, true},
		{setsTutorial, `{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}`, keys{"aws:tagkeys": "environment|dept"}, false},
		{setsTutorial, `{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}`, keys{}, true},
		{setsTutorial, `{"ForAllValues:StringEquals":{"aws:TagKeys":["environment","cost-center"]}}`, keys{"aws:tagkeys": ""}, true},
		{setsTutorial, `{"ForAllValues:StringNotEquals":{"aws:TagKeys":["environment"]}}`, keys{"aws:tagkeys": "dept|environment"}, false},
		{setsTutorial, `{"ForAnyValue:StringEquals":{"aws:TagKeys":["webserver","dept"]}}`, keys{"aws:tagkeys": "webserver|other"}, true},
		{setsTutorial, `{"ForAnyValue:StringEquals":{"aws:TagKeys":["webserver","dept"]}}`, keys{"aws:tagkeys": "other"}, false},
		{setsTutorial, `{"ForAnyValue:StringEquals":{"aws:TagKeys":["webserver","dept"]}}`, keys{}, false},
		{setsTutorial, `{"forAnyValue:stringlike":{"aws:TagKeys":["web*"]}}`, keys{"aws:tagkeys": "a|webserver"}, true},
		{setsPage, `{"ForAnyValue:StringEqualsIfExists":{"aws:TagKeys":["a"]}}`, keys{}, true},
		// Variables.
		{variablesPage, `{"StringEquals":{"aws:ResourceTag/team":"${aws:PrincipalTag/team, 'company-wide'}"}}`, keys{"aws:resourcetag/team": "company-wide"}, true},
		{variablesPage, `{"StringEquals":{"aws:ResourceTag/team":"${aws:PrincipalTag/team, 'company-wide'}"}}`, keys{"aws:resourcetag/team": "yellow", "aws:principaltag/team": "yellow"}, true},
		{variablesPage, `{"StringEquals":{"aws:ResourceTag/team":"${aws:PrincipalTag/team}"}}`, keys{"aws:resourcetag/team": "yellow"}, false},
		{variablesPage, `{"StringLike":{"aws:ResourceTag/n":"a${*}b${?}c${$}*"}}`, keys{"aws:resourcetag/n": "a*b?c$d"}, true},
		{variablesPage, `{"StringLike":{"aws:ResourceTag/n":"a${*}b"}}`, keys{"aws:resourcetag/n": "axxb"}, false},
		// What a variable stands for is never a pattern.
		{variablesPage, `{"StringLike":{"aws:ResourceTag/n":"${aws:PrincipalTag/n}"}}`, keys{"aws:resourcetag/n": "anything", "aws:principaltag/n": "*"}, false},
	} {
		if got := holds(t, c.condition, c.keys); got != c.want {
			t.Errorf("%s: %s with %v: %v", c.page, c.condition, c.keys, got)
		}
	}
}

// Documents of 2008-10-17 know no variables: ${aws:username} is then a text like any other.
func TestVersion2008HasNoVariables(t *testing.T) {
	const document = `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::home/${aws:username}"}}`
	p, err := policy.Parse(policy.Identity, document)
	if err != nil {
		t.Fatal(err)
	}
	k := keys{"aws:username": "bob"}
	for resource, want := range map[string]policy.Effect{"arn:aws:s3:::home/bob": policy.None, "arn:aws:s3:::home/${aws:username}": policy.Allow} {
		if got := p.Evaluate(&policy.Request{Action: "s3:GetObject", Resource: resource, Key: k.value}); got != want {
			t.Errorf("%s: %v", resource, got)
		}
	}
}
