package registry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

const (
	maxLifecycleRules = 50
	maxWildcards      = 4  // in one pattern
	minArchivedDays   = 90 // that an image stays in the archive before a policy may expire it
)

// Words of lifecycle policies.
const (
	selectsTagged   = "tagged"
	selectsUntagged = "untagged"
	selectsAny      = "any"

	countsMoreThan    = "imageCountMoreThan"
	countsPushed      = "sinceImagePushed"
	countsPulled      = "sinceImagePulled"
	countsArchived    = "sinceImageTransitioned"
	actionExpire      = "expire"
	actionTransition  = "transition"
	storageStandard   = "standard"
	storageArchive    = "archive"
	lifecycleTextName = "LifecyclePolicyText"
)

// lifecyclePolicy is a parsed policy: its rules, the first to be applied first.
type lifecyclePolicy []lifecycleRule

// lifecycleRule is one rule. See "Lifecycle policy properties in Amazon ECR" in the user guide.
type lifecycleRule struct {
	priority  int
	tagStatus string
	patterns  []string // of which every one has to match a tag; prefixes are patterns that end in *
	archived  bool     // selects images in the archive; otherwise those that are not
	countType string
	count     int
	action    string
}

// lifecycleInvalid is how ECR refuses a policy.
func lifecycleInvalid(format string, args ...any) error {
	return awserr.New("InvalidParameterException", "Invalid parameter at '%s' failed to satisfy constraint: 'Lifecycle policy validation failure: %s'", lifecycleTextName, fmt.Sprintf(format, args...))
}

// parseLifecyclePolicy checks a policy's text. Where ECR's words for a mistake are on public record they are used.
func parseLifecyclePolicy(text string) (lifecyclePolicy, error) {
	var top map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(&top); err != nil || top == nil || d.More() {
		return nil, lifecycleInvalid("Could not map policyString into LifecyclePolicy.")
	}
	o := jsonObject(top)
	if err := o.has([]string{"rules"}); err != nil {
		return nil, err
	}
	list, ok := o["rules"].([]any)
	switch {
	case !ok:
		return nil, wrongType(o["rules"], "array")
	case len(list) == 0:
		return nil, lifecycleInvalid("array is too short: must have at least 1 elements but instance has 0 elements")
	case len(list) > maxLifecycleRules:
		return nil, lifecycleInvalid("array is too long: must have at most %d elements but instance has %d elements", maxLifecycleRules, len(list))
	}
	var p lifecyclePolicy
	for _, item := range list {
		rule, err := parseLifecycleRule(item)
		if err != nil {
			return nil, err
		}
		p = append(p, rule)
	}
	slices.SortStableFunc(p, func(a, b lifecycleRule) int { return cmp.Compare(a.priority, b.priority) })
	return p, p.check()
}

func parseLifecycleRule(item any) (r lifecycleRule, err error) {
	o, ok := item.(map[string]any)
	if !ok {
		return r, wrongType(item, "object")
	}
	rule := jsonObject(o)
	if err := rule.has([]string{"action", "rulePriority", "selection"}, "description"); err != nil {
		return r, err
	}
	if r.priority, err = rule.positive("rulePriority"); err != nil {
		return r, err
	}
	if _, err := rule.text("description"); err != nil {
		return r, err
	}
	selection, err := rule.object("selection")
	if err != nil {
		return r, err
	}
	if err := selection.has([]string{"countNumber", "countType", "tagStatus"}, "countUnit", "storageClass", "tagPatternList", "tagPrefixList"); err != nil {
		return r, err
	}
	action, err := rule.object("action")
	if err != nil {
		return r, err
	}
	if err := action.has([]string{"type"}, "targetStorageClass"); err != nil {
		return r, err
	}
	if err := r.parseTags(selection); err != nil {
		return r, err
	}
	return r, r.parseCount(selection, action)
}

func (r *lifecycleRule) parseTags(selection jsonObject) (err error) {
	if r.tagStatus, err = selection.text("tagStatus", selectsAny, selectsTagged, selectsUntagged); err != nil {
		return err
	}
	prefixes, err := selection.texts("tagPrefixList")
	if err != nil {
		return err
	}
	patterns, err := selection.texts("tagPatternList")
	if err != nil {
		return err
	}
	switch {
	case r.tagStatus == selectsTagged && prefixes == nil && patterns == nil:
		return lifecycleInvalid("Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.")
	case r.tagStatus != selectsTagged && (prefixes != nil || patterns != nil):
		return lifecycleInvalid("Cannot specify tagPrefixList or tagPatternList when tagStatus=%s.", strings.ToUpper(r.tagStatus))
	case prefixes != nil && patterns != nil:
		return lifecycleInvalid("Cannot specify both tagPrefixList and tagPatternList.")
	}
	for _, s := range patterns {
		if n := strings.Count(s, "*"); n > maxWildcards {
			return lifecycleInvalid("tagPatternList has at most %d wildcards in a pattern; %q has %d", maxWildcards, s, n)
		}
	}
	for _, s := range prefixes {
		if strings.Contains(s, "*") {
			return lifecycleInvalid("tagPrefixList has no wildcards; %q has one", s)
		}
		patterns = append(patterns, s+"*")
	}
	slices.Sort(patterns)
	r.patterns = slices.Compact(patterns)
	return nil
}

func (r *lifecycleRule) parseCount(selection, action jsonObject) (err error) {
	if r.countType, err = selection.text("countType", countsMoreThan, countsPulled, countsPushed, countsArchived); err != nil {
		return err
	}
	if r.count, err = selection.positive("countNumber"); err != nil {
		return err
	}
	unit, err := selection.text("countUnit", "days")
	if err != nil {
		return err
	}
	class, err := selection.text("storageClass", storageArchive, storageStandard)
	if err != nil {
		return err
	}
	if r.action, err = action.text("type", actionExpire, actionTransition); err != nil {
		return err
	}
	target, err := action.text("targetStorageClass", storageArchive)
	if err != nil {
		return err
	}
	r.archived = class == storageArchive
	switch {
	case r.countType == countsMoreThan && unit != "":
		return lifecycleInvalid("Cannot specify countUnit when countType=%s.", r.countType)
	case r.countType != countsMoreThan && unit == "":
		return lifecycleInvalid("Must specify countUnit when countType=%s.", r.countType)
	case r.countType == countsArchived && !r.archived:
		return lifecycleInvalid("Must specify storageClass=archive when countType=%s.", r.countType)
	case r.countType != countsArchived && r.archived:
		return lifecycleInvalid("Cannot specify storageClass=archive when countType=%s.", r.countType)
	case r.action == actionTransition && target == "":
		return lifecycleInvalid("Must specify targetStorageClass when type=%s.", r.action)
	case r.action == actionExpire && target != "":
		return lifecycleInvalid("Cannot specify targetStorageClass when type=%s.", r.action)
	case r.countType == countsPulled && r.action != actionTransition:
		return lifecycleInvalid("Action type must be transition when countType=%s.", r.countType)
	case r.countType == countsArchived && r.action != actionExpire:
		return lifecycleInvalid("Action type must be expire when countType=%s.", r.countType)
	case r.countType == countsArchived && r.count < minArchivedDays:
		return lifecycleInvalid("countNumber must be at least %d when countType=%s.", minArchivedDays, r.countType)
	}
	return nil
}

// check compares the rules, which are in order, with one another.
func (p lifecyclePolicy) check() error {
	type selects struct {
		archived bool
		what     string // untagged, or the patterns
	}
	seen := map[selects]bool{}
	last := map[bool]bool{} // of a storage class the rule for any was seen
	for i, r := range p {
		if i > 0 && p[i-1].priority == r.priority {
			return lifecycleInvalid("Rules must have different rulePriority; %d is used more than once", r.priority)
		}
		if last[r.archived] {
			return lifecycleInvalid("Rule for tagStatus=ANY must have the lowest priority per storage class")
		}
		s := selects{r.archived, strings.Join(r.patterns, " ")}
		switch r.tagStatus {
		case selectsAny:
			last[r.archived] = true
			continue
		case selectsUntagged:
			if seen[s] {
				return lifecycleInvalid("Only one rule can select Untagged images per storage class")
			}
		case selectsTagged:
			if seen[s] {
				return lifecycleInvalid("Only one rule per storage class can select the tags %q", r.patterns)
			}
		}
		seen[s] = true
	}
	return nil
}

// jsonObject reads members of a JSON object and says what is wrong with them in the words of the schema validator that ECR is
// seen to use.
type jsonObject map[string]any

// has checks that all that is required is there, and nothing beyond that and what is optional.
func (o jsonObject) has(required []string, optional ...string) error {
	var missing, unknown []string
	for _, name := range required {
		if _, ok := o[name]; !ok {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return lifecycleInvalid("object has missing required properties (%s)", quoted(missing))
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(required, name) && !slices.Contains(optional, name) {
			unknown = append(unknown, name)
		}
	}
	if unknown != nil {
		return lifecycleInvalid("object instance has properties which are not allowed by the schema: (%s)", quoted(unknown))
	}
	return nil
}

func quoted(names []string) string {
	b, err := json.Marshal(names)
	if err != nil {
		panic(err) // strings
	}
	return string(b)
}

func wrongType(v any, allowed string) error {
	var is string
	switch v.(type) {
	case nil:
		is = "null"
	case map[string]any:
		is = "object"
	case []any:
		is = "array"
	case string:
		is = "string"
	case bool:
		is = "boolean"
	default:
		is = "number"
	}
	return lifecycleInvalid(`instance type (%s) does not match any allowed primitive type (allowed: ["%s"])`, is, allowed)
}

func (o jsonObject) object(name string) (jsonObject, error) {
	m, ok := o[name].(map[string]any)
	if !ok {
		return nil, wrongType(o[name], "object")
	}
	return m, nil
}

// text is a string, one of those allowed where some are named, or empty where it is absent.
func (o jsonObject) text(name string, allowed ...string) (string, error) {
	v, ok := o[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	switch {
	case !ok:
		return "", wrongType(v, "string")
	case len(allowed) > 0 && !slices.Contains(allowed, s):
		return "", lifecycleInvalid("instance value (%q) not found in enum (possible values: %s)", s, quoted(allowed))
	}
	return s, nil
}

// texts is a list of parts of tags, nil where it is absent.
func (o jsonObject) texts(name string) ([]string, error) {
	v, ok := o[name]
	if !ok {
		return nil, nil
	}
	list, ok := v.([]any)
	switch {
	case !ok:
		return nil, wrongType(v, "array")
	case len(list) == 0:
		return nil, lifecycleInvalid("array is too short: must have at least 1 elements but instance has 0 elements")
	}
	out := []string{}
	for _, item := range list {
		s, ok := item.(string)
		switch {
		case !ok:
			return nil, wrongType(item, "string")
		case !tagFilterRE.MatchString(s):
			return nil, lifecycleInvalid("%s has parts of tags, 1 to 128 letters, digits, periods, underscores and hyphens, not %q", name, s)
		}
		out = append(out, s)
	}
	return out, nil
}

func (o jsonObject) positive(name string) (int, error) {
	n, ok := o[name].(json.Number)
	if !ok {
		return 0, wrongType(o[name], "integer")
	}
	i, err := n.Int64()
	switch {
	case err != nil || i > 1<<31-1:
		return 0, wrongType(n, "integer")
	case i < 1:
		return 0, lifecycleInvalid("numeric instance is lower than the required minimum (minimum: 1, found: %d)", i)
	}
	return int(i), nil
}
