package elb

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// Limits of a rule: "Condition types for listener rules".
const (
	maxConditionValues = 5   // comparison strings a rule, over all its conditions
	maxWildcards       = 6   // a rule
	maxValueLength     = 128 // characters
)

var (
	hostChars   = regexp.MustCompile(`^[A-Za-z0-9.*?-]+$`)
	pathChars   = regexp.MustCompile(`^[A-Za-z0-9_.$/~"'@:+&*?%=,;!()-]+$`)
	methodChars = regexp.MustCompile(`^[A-Z_-]+$`)
	headerChars = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

// checkConditions validates conditions and renders them as they are kept: values always in the field's own config.
func checkConditions(conditions []types.RuleCondition) (string, error) {
	if len(conditions) == 0 {
		return "", invalid("At least one condition must be specified")
	}
	out := make([]types.RuleCondition, 0, len(conditions))
	values, wildcards := 0, 0
	seen := map[string]bool{}
	for _, c := range conditions {
		if len(c.RegexValues) > 0 {
			return "", notYet("A condition with regular expressions")
		}
		field := aws.ToString(c.Field)
		if seen[field] && (field == "host-header" || field == "path-pattern" || field == "http-request-method" || field == "source-ip") {
			return "", invalid("A rule can only have one '%s' condition", field)
		}
		seen[field] = true
		n, texts, err := normalizeCondition(field, c)
		if err != nil {
			return "", err
		}
		if len(texts) == 0 {
			return "", invalid("A condition value must be specified")
		}
		for _, t := range texts {
			values++
			wildcards += strings.Count(t, "*") + strings.Count(t, "?")
			if len(t) > maxValueLength {
				return "", invalid("Condition value '%s' cannot be longer than '%d' characters", t, maxValueLength)
			}
		}
		out = append(out, n)
	}
	if values > maxConditionValues {
		return "", invalid("Rules cannot have more than '%d' condition values", maxConditionValues)
	}
	if wildcards > maxWildcards {
		return "", invalid("Rules cannot have more than '%d' wildcard characters", maxWildcards)
	}
	return controlplane.EncodeShape(out), nil
}

// normalizeCondition gives the condition as kept and the strings it compares with.
func normalizeCondition(field string, c types.RuleCondition) (types.RuleCondition, []string, error) {
	n := types.RuleCondition{Field: aws.String(field)}
	values := func(config []string, given bool) ([]string, error) {
		if given && len(c.Values) > 0 {
			return nil, invalid("You cannot specify both 'Values' and a '%s' configuration", field)
		}
		if given {
			return config, nil
		}
		return c.Values, nil
	}
	var vs []string
	var err error
	switch field {
	case "host-header":
		n.HostHeaderConfig = &types.HostHeaderConditionConfig{}
		if c.HostHeaderConfig != nil {
			n.HostHeaderConfig.Values = c.HostHeaderConfig.Values
		}
		vs, err = values(n.HostHeaderConfig.Values, c.HostHeaderConfig != nil)
		n.HostHeaderConfig.Values = vs
		err = firstBad(err, vs, hostChars, field)
	case "path-pattern":
		n.PathPatternConfig = &types.PathPatternConditionConfig{}
		if c.PathPatternConfig != nil {
			n.PathPatternConfig.Values = c.PathPatternConfig.Values
		}
		vs, err = values(n.PathPatternConfig.Values, c.PathPatternConfig != nil)
		n.PathPatternConfig.Values = vs
		err = firstBad(err, vs, pathChars, field)
	case "http-request-method":
		if c.HttpRequestMethodConfig == nil {
			return n, nil, invalid("An http-request-method configuration must be specified")
		}
		n.HttpRequestMethodConfig, vs = c.HttpRequestMethodConfig, c.HttpRequestMethodConfig.Values
		err = firstBad(nil, vs, methodChars, field)
	case "http-header":
		if c.HttpHeaderConfig == nil || !headerChars.MatchString(aws.ToString(c.HttpHeaderConfig.HttpHeaderName)) {
			return n, nil, invalid("A valid HTTP header name must be specified")
		}
		if strings.EqualFold(*c.HttpHeaderConfig.HttpHeaderName, "host") {
			return n, nil, invalid("Use a host-header condition to match the Host header")
		}
		n.HttpHeaderConfig, vs = c.HttpHeaderConfig, c.HttpHeaderConfig.Values
	case "query-string":
		if c.QueryStringConfig == nil {
			return n, nil, invalid("A query-string configuration must be specified")
		}
		n.QueryStringConfig = c.QueryStringConfig
		for _, p := range c.QueryStringConfig.Values {
			if aws.ToString(p.Value) == "" {
				return n, nil, invalid("A query string value must be specified")
			}
			vs = append(vs, aws.ToString(p.Key)+*p.Value)
		}
	case "source-ip":
		if c.SourceIpConfig == nil {
			return n, nil, invalid("A source-ip configuration must be specified")
		}
		n.SourceIpConfig, vs = c.SourceIpConfig, c.SourceIpConfig.Values
		for _, v := range vs {
			if _, perr := netip.ParsePrefix(v); perr != nil {
				return n, nil, invalid("Condition value '%s' is not a valid CIDR block", v)
			}
		}
	default:
		return n, nil, invalid("Condition field '%s' must be one of '[path-pattern, host-header, http-header, http-request-method, query-string, source-ip]'", field)
	}
	return n, vs, err
}

func firstBad(err error, values []string, chars *regexp.Regexp, field string) error {
	for _, v := range values {
		if err == nil && !chars.MatchString(v) {
			err = invalid("Condition value '%s' contains characters that are not valid for '%s'", v, field)
		}
	}
	return err
}

// renderConditions adds Values to the two fields that had only that before there were configs; clients read either.
func renderConditions(cs []types.RuleCondition) []types.RuleCondition {
	for i, c := range cs {
		switch {
		case c.HostHeaderConfig != nil:
			cs[i].Values = c.HostHeaderConfig.Values
		case c.PathPatternConfig != nil:
			cs[i].Values = c.PathPatternConfig.Values
		}
	}
	return cs
}
