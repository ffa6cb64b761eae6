package registry

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// candidate is an image as the rules of a lifecycle policy look at it.
type candidate struct {
	digest  string
	tags    []string
	parents []string // indexes that name it
	pushed  time.Time
	// pulled, archived and activated (restored from the archive) are zero when that never happened.
	pulled, archived, activated time.Time
	inArchive                   bool
	subject                     *candidate // of a reference artifact whose subject is here
	dangling                    bool       // a reference artifact whose subject is not
	// needed says who needs the image, beyond what ECR knows of: it is kept, but counts.
	needed string
}

// verdict is what happens to an image, and by which rule; nil: reference artifacts follow their subject by none.
type verdict struct {
	*candidate
	action string
	rule   *lifecycleRule
	// kept says why nothing happens although a rule asks for it.
	kept string
}

// artifactGrace is how long a reference artifact may be without its subject, which can be pushed after it.
const artifactGrace = 24 * time.Hour

// since is the time by which images are ordered: when it was pushed, or last came back from the archive, or went there.
func (c *candidate) since() time.Time {
	switch {
	case c.inArchive:
		return c.archived
	case !c.activated.IsZero():
		return c.activated
	}
	return c.pushed
}

// lastPulled is when it was pulled last, else pushed; a restoration counts as a pull.
func (c *candidate) lastPulled() time.Time {
	last := cmp.Or(c.pulled, c.pushed)
	if c.activated.After(last) {
		return c.activated
	}
	return last
}

// selects says whether the rule's tagging requirements and storage class fit. Every pattern has to match one of the tags.
func (r *lifecycleRule) selects(c *candidate) bool {
	switch {
	case r.archived != c.inArchive:
		return false
	case r.tagStatus == selectsAny:
		return true
	case r.tagStatus == selectsUntagged:
		return len(c.tags) == 0
	}
	for _, p := range r.patterns {
		if !slices.ContainsFunc(c.tags, func(t string) bool { return matchesWildcard(p, t) }) {
			return false
		}
	}
	return len(c.tags) > 0
}

// marks gives those of the selected images, which it sorts, that the rule's count asks to go.
func (r *lifecycleRule) marks(selected []*candidate, now time.Time) []*candidate {
	slices.SortFunc(selected, func(a, b *candidate) int { // youngest first
		return cmp.Or(b.since().Compare(a.since()), strings.Compare(a.digest, b.digest))
	})
	if r.countType == countsMoreThan {
		return selected[min(r.count, len(selected)):]
	}
	age := time.Duration(r.count) * 24 * time.Hour
	var out []*candidate
	for _, c := range selected {
		since := c.since()
		if r.countType == countsPulled {
			since = c.lastPulled()
		}
		if now.Sub(since) > age {
			out = append(out, c)
		}
	}
	return out
}

// evaluate applies a policy to all images of a repository. It has no side effects and depends on nothing else.
//
// As ECR has it: all rules are evaluated over all images, then applied in their order. The first rule whose tagging requirements
// an image meets is the only one that can touch it; later rules still count it. An image that an index names goes only with or
// after that index. Reference artifacts are no rule's business: they follow their subject. See "Lifecycle policy evaluation
// rules" in the user guide.
func (p lifecyclePolicy) evaluate(images []*candidate, now time.Time) []verdict {
	owner := map[*candidate]*lifecycleRule{}
	marked := map[*candidate]bool{}
	for i := range p {
		r := &p[i]
		var selected []*candidate
		for _, c := range images {
			if c.subject == nil && !c.dangling && r.selects(c) {
				selected = append(selected, c)
				if owner[c] == nil {
					owner[c] = r
				}
			}
		}
		for _, c := range r.marks(selected, now) {
			if owner[c] == r {
				marked[c] = true
			}
		}
	}
	var out []verdict
	for _, c := range images {
		switch {
		case marked[c]:
			out = append(out, verdict{candidate: c, action: owner[c].action, rule: owner[c]})
		case c.dangling && now.Sub(c.pushed) > artifactGrace:
			out = append(out, verdict{candidate: c, action: actionExpire})
		case c.subject != nil && c.subject.inArchive && !c.inArchive:
			out = append(out, verdict{candidate: c, action: actionTransition})
		}
	}
	keep(out, images)
	slices.SortFunc(out, func(a, b verdict) int { return strings.Compare(a.digest, b.digest) })
	return out
}

// keep finds what stays: images that somebody needs, and images in an index that stays.
func keep(verdicts []verdict, images []*candidate) {
	going := map[string]string{} // digest: action
	for i := range verdicts {
		if v := &verdicts[i]; v.needed != "" {
			v.kept = "needed by " + v.needed
		} else {
			going[v.digest] = v.action
		}
	}
	archived := map[string]bool{}
	for _, c := range images {
		archived[c.digest] = c.inArchive
	}
	for changed := true; changed; {
		changed = false
		for i := range verdicts {
			v := &verdicts[i]
			if v.kept != "" {
				continue
			}
			for _, parent := range v.parents {
				action, goes := going[parent]
				if goes && (action == actionExpire || v.action == actionTransition) || v.action == actionTransition && archived[parent] {
					continue
				}
				v.kept = "referenced by manifest list " + parent
				delete(going, v.digest)
				changed = true
				break
			}
		}
	}
}
