package registry

import (
	"regexp"
	"strings"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

const (
	repositoryPattern = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
	tagPattern        = `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
)

var (
	repositoryRE = regexp.MustCompile(`^` + repositoryPattern + `$`)
	tagRE        = regexp.MustCompile(`^` + tagPattern + `$`)
	tagFilterRE  = regexp.MustCompile(`^[0-9a-zA-Z._*-]{1,128}$`) // part of a tag, with wildcards
)

func checkRepositoryName(name string) error {
	switch {
	case len(name) < 2 || len(name) > 256:
		return awserr.New("InvalidParameterException", "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must have length between 2 and 256'")
	case !repositoryRE.MatchString(name):
		return awserr.New("InvalidParameterException", "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '%s''", repositoryPattern)
	}
	return nil
}

func checkTag(tag string) error {
	if !tagRE.MatchString(tag) {
		return awserr.New("InvalidParameterException", "Invalid parameter at 'imageTag' failed to satisfy constraint: 'must satisfy regular expression '%s''", tagPattern)
	}
	return nil
}

// matchesWildcard compares a tag with a filter in which each * stands for any characters.
func matchesWildcard(filter, tag string) bool {
	head, rest, star := strings.Cut(filter, "*")
	if !star {
		return filter == tag
	}
	tag, ok := strings.CutPrefix(tag, head)
	for ok {
		head, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(tag, head)
		}
		_, tag, ok = strings.Cut(tag, head) // the first place is as good as any
	}
	return false
}
