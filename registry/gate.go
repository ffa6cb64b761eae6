package registry

import (
	"fmt"
	"net/http"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// gate refuses an image to a task's host because of its findings, or because they are not known yet. An image that nobody has asked to be scanned is
// let through, and so is one that cannot be scanned: the gate is about findings.
func (r *Registry) gate(v state.Reader, repo *Repository, m *Manifest) error {
	if r.Gate == "" {
		return nil
	}
	s, ok := Scans.Get(v, Manifests.Key(m))
	if !ok {
		return nil
	}
	if s.Completed == nil {
		if !s.Pending {
			return nil
		}
		return &ociError{http.StatusForbidden, "DENIED", fmt.Sprintf("the image %s@%s is not scanned yet, and tasks may not run images with findings of severity %s or above: "+
			"it can run once its scan has ended", repo.Name, m.Digest, r.Gate)}
	}
	worst, n := s.atLeast(r.Gate)
	if n == 0 {
		return nil
	}
	return &ociError{http.StatusForbidden, "DENIED", fmt.Sprintf("the image %s@%s has %d findings of severity %s or above, the worst %s: tasks may not run it "+
		"(DescribeImageScanFindings lists them; a suppression keeps one from counting)", repo.Name, m.Digest, n, r.Gate, worst)}
}
