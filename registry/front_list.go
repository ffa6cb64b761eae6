package registry

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	listFallback = 1000
	listMost     = 10000
)

// nextPage sets the Link header under which a listing goes on.
func nextPage(w http.ResponseWriter, path string, query url.Values) {
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, path, query.Encode()))
}

// listTags lists tags in lexical order. Its cost is that of the page, not of the repository.
func (f front) listTags(w http.ResponseWriter, q *request) error {
	n, last, err := q.pageOf(listFallback, listMost)
	if err != nil {
		return err
	}
	after := q.repo.in()
	if last != "" {
		after = q.repo.in(last)
	}
	tags := []string{}
	for t := range Tags.ScanFrom(f.Store.View(), q.repo.in(), after) {
		if len(tags) >= n {
			if n > 0 {
				nextPage(w, q.URL.Path, url.Values{"n": {fmt.Sprint(n)}, "last": {tags[n-1]}})
			}
			break
		}
		tags = append(tags, t.Name)
	}
	writeJSON(w, "application/json", map[string]any{"name": q.name, "tags": tags})
	return nil
}

// catalog lists the repositories of the caller's account and region.
func (f front) catalog(w http.ResponseWriter, hr *http.Request, c caller) error {
	if hr.Method != http.MethodGet {
		return &ociError{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported."}
	}
	if err := f.may(hr, c, "GET catalog", "*"); err != nil {
		return err
	}
	n, last, err := pageQuery(hr, listFallback, listMost)
	if err != nil {
		return err
	}
	prefix := state.K(c.account, c.region)
	after := prefix
	if last != "" {
		after = state.K(c.account, c.region, last)
	}
	names := []string{}
	for r := range Repositories.ScanFrom(f.Store.View(), prefix, after) {
		if len(names) >= n {
			if n > 0 {
				nextPage(w, hr.URL.Path, url.Values{"n": {fmt.Sprint(n)}, "last": {names[n-1]}})
			}
			break
		}
		names = append(names, r.Name)
	}
	writeJSON(w, "application/json", map[string]any{"repositories": names})
	return nil
}

// referrer is a descriptor in the answer of the referrers API.
type referrer struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         uint64            `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// maxReferrersBytes is about how large a page of referrers may become; clients read indexes of up to 4 MiB.
const maxReferrersBytes = 2 << 20

// listReferrers lists the manifests that have the digest as their subject, whether that exists or not.
func (f front) listReferrers(w http.ResponseWriter, q *request) error {
	d, err := q.digest(q.ref)
	if err != nil {
		return err
	}
	query := q.URL.Query()
	filter := query.Get("artifactType")
	subject := q.repo.in(string(d))
	scan := ManifestsBySubject.Scan(f.Store.View(), subject)
	if last := query.Get("last"); last != "" {
		scan = ManifestsBySubject.ScanFrom(f.Store.View(), subject, subject, q.repo.in(last))
	}
	found, size := []referrer{}, 0
	for m := range scan {
		if m.InArchive || filter != "" && m.ArtifactType != filter {
			continue
		}
		if size > maxReferrersBytes {
			query.Set("last", found[len(found)-1].Digest)
			nextPage(w, q.URL.Path, query)
			break
		}
		found = append(found, referrer{m.MediaType, m.Digest, m.Size, m.ArtifactType, m.Annotations})
		size += 512
		for k, v := range m.Annotations {
			size += len(k) + len(v)
		}
	}
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	writeJSON(w, mediaTypeOCIIndex, map[string]any{"schemaVersion": 2, "mediaType": mediaTypeOCIIndex, "manifests": found})
	return nil
}
