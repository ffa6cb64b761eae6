package wire

import (
	"fmt"
	"strings"

	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// style is how a service words the refusal of a value its model does not allow.
type style struct {
	code    string
	message func([]violation) string
	// codeOf decides by the first violation where a service has more than one code.
	codeOf func(violation) string
}

// styles are the services whose refusals differ from the protocol's default. Sources are messages that services really
// gave, as users quote them.
//
//	logs              "2 validation errors detected: Value '' at 'logGroupNamePrefix' failed to satisfy constraint: Member must …"
//	                  fluent-plugin-cloudwatch-logs#223; "Value '[]' at 'logEvents' …" winston-cloudwatch#55
//	servicediscovery  "InvalidInput: 1 validation error detected: Value '…' at 'creatorRequestId' …" terraform-provider-aws#4701
//	ecr               "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '…''" mu#323;
//	                  "'Member must satisfy constraint: [Member must satisfy regular expression pattern: [0-9]{12}]'" amazon-ecr-login#225
//	elb               "ValidationError … Value null at 'loadBalancerNames' failed to satisfy constraint: Member must not be null" fullstop#528
//	ec2               "InvalidParameterValue: Value (…) for parameter availabilityZone is invalid." aws-cloudformation-templates#454
var styles = map[string]style{
	"cloudwatchlogs":         {code: "InvalidParameterException", message: detected},
	"ecs":                    {code: "InvalidParameterException", message: detected},
	"ecr":                    {code: "InvalidParameterException", message: ecrMessage},
	"ecrpublic":              {code: "InvalidParameterException", message: ecrMessage},
	"servicediscovery":       {code: "InvalidInput", message: detected},
	"applicationautoscaling": {code: "ValidationException", message: detected},
}

func styleOf(m *model.Model) style {
	if s, ok := styles[m.Service]; ok {
		return s
	}
	switch Protocol(m.Protocol) {
	case Query:
		return style{code: "ValidationError", message: detected}
	case EC2:
		return style{codeOf: ec2Code, message: ec2Message}
	}
	return style{code: "ValidationException", message: detected}
}

func (s style) refuse(found []violation) error {
	code := s.code
	if s.codeOf != nil {
		code = s.codeOf(found[0])
	}
	return awserr.WithStatus(400, code, "%s", s.message(found))
}

// detected is the wording of most services: all violations in one message.
func detected(found []violation) string {
	var b strings.Builder
	plural := ""
	if len(found) > 1 {
		plural = "s"
	}
	fmt.Fprintf(&b, "%d validation error%s detected: ", len(found), plural)
	for i, v := range found {
		if i > 0 {
			b.WriteString("; ")
		}
		switch {
		case v.rule == notNull:
			b.WriteString("Value null at '")
		case v.shown:
			b.WriteString("Value '" + shorten(v.value) + "' at '")
		default:
			b.WriteString("Value at '")
		}
		b.WriteString(lowerFirst(v.path) + "' failed to satisfy constraint: " + v.constraint("Member "))
	}
	return b.String()
}

// constraint words a rule; subject is "Member " or, in ecr's messages, nothing.
func (v violation) constraint(subject string) string {
	if v.within != "" {
		inner := v
		inner.within = ""
		return v.within + " must satisfy constraint: [" + inner.constraint("Member ") + "]"
	}
	switch v.rule {
	case notNull:
		return subject + "must not be null"
	case minLength:
		return subject + "must have length greater than or equal to " + v.bound
	case maxLength:
		return subject + "must have length less than or equal to " + v.bound
	case minValue:
		return subject + "must have value greater than or equal to " + v.bound
	case maxValue:
		return subject + "must have value less than or equal to " + v.bound
	case matches:
		if subject == "" {
			return "must satisfy regular expression '" + v.bound + "'"
		}
		return subject + "must satisfy regular expression pattern: " + v.bound
	case enumValue:
		return subject + "must satisfy enum value set: [" + strings.Join(v.set, ", ") + "]"
	}
	panic("wire: unknown constraint")
}

// ecrMessage tells the first violation only. A length is told before a pattern.
func ecrMessage(found []violation) string {
	v := found[0]
	for _, w := range found[1:] {
		if w.path == v.path && v.rule == matches && (w.rule == minLength || w.rule == maxLength) {
			v = w
		}
	}
	return "Invalid parameter at '" + v.path + "' failed to satisfy constraint: '" + v.constraint("") + "'"
}

func ec2Code(v violation) string {
	if v.rule == notNull {
		return "MissingParameter"
	}
	return "InvalidParameterValue"
}

func ec2Message(found []violation) string {
	v := found[0]
	name := lowerFirst(v.path)
	switch v.rule {
	case notNull:
		return "The request must contain the parameter " + name
	case minValue:
		return fmt.Sprintf("Value ( %s ) for parameter %s is invalid. Expecting a value greater than or equal to %s.", v.value, name, v.bound)
	case maxValue:
		return fmt.Sprintf("Value ( %s ) for parameter %s is invalid. Expecting a value less than or equal to %s.", v.value, name, v.bound)
	}
	if v.value == "" {
		return fmt.Sprintf("Value () for parameter %s is invalid. The value cannot be empty", name)
	}
	return fmt.Sprintf("Value (%s) for parameter %s is invalid.", shorten(v.value), name)
}

func lowerFirst(s string) string {
	if s != "" && s[0] >= 'A' && s[0] <= 'Z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}

// shorten keeps a message from repeating a whole document.
func shorten(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
