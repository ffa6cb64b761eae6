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
	if !strings.HasPrefix(tag, head) {
		return false
	}
	for i := len(head); i <= len(tag); i++ {
		if matchesWildcard(rest, tag[i:]) {
			return true
		}
	}
	return false
}
