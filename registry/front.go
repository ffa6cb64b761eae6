package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
)

// front is the distribution protocol under /v2/: it authenticates, finds the repository and calls the endpoint's method.
type front struct{ *Registry }

// request is one request to a repository.
type request struct {
	*http.Request
	caller
	name string      // of the repository as the client has it: in a public registry below the alias
	repo *Repository // nil only where the endpoint creates it
	ref  string      // what follows the endpoint's name: digest, tag, upload id
}

// ServeHTTP answers with an OCI error body whatever goes wrong.
func (f front) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if err := f.serve(w, hr); err != nil {
		f.fail(w, hr, err)
	}
}

func (f front) serve(w http.ResponseWriter, hr *http.Request) error {
	rest, ok := strings.CutPrefix(hr.URL.Path, "/v2/")
	if !ok && hr.URL.Path != "/v2" {
		return &ociError{http.StatusNotFound, "UNSUPPORTED", "no such endpoint"}
	}
	if isPublicHost(hr.Host) && rest == tokenPath {
		return f.publicToken(w, hr)
	}
	c, err := f.caller(hr)
	if err != nil {
		return err
	}
	switch rest {
	case "":
		return f.check(w, hr)
	case "_catalog":
		return f.catalog(w, hr, c)
	}
	name, endpoint, ref, ok := splitPath(rest)
	if !ok {
		return &ociError{http.StatusNotFound, "UNSUPPORTED", "no such endpoint"}
	}
	named := name
	if c.region == publicRegion {
		alias, below, _ := strings.Cut(name, "/")
		if c.account, ok = accountOfAlias(alias); !ok {
			return &ociError{http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("There is no public registry with the alias '%s'.", alias)}
		}
		name = below
	}
	if err := checkRepositoryName(name); err != nil {
		return &ociError{http.StatusBadRequest, "NAME_INVALID", err.(*awserr.Error).Message}
	}
	key := hr.Method + " " + endpoint
	if endpoint == "uploads" && ref != "" {
		key += "/id"
	}
	handle := f.endpoint(key)
	if handle == nil {
		return &ociError{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported."}
	}
	if err := f.may(hr, c, key, name); err != nil {
		return err
	}
	if endpoint == "manifests" && (hr.Method == http.MethodGet || hr.Method == http.MethodHead) {
		if err := f.cache(hr, c, name, ref); err != nil {
			return err
		}
	}
	repo, err := f.find(hr, c, name)
	if err != nil {
		return err
	}
	return handle(w, &request{hr, c, named, repo, ref})
}

// endpoint is the routing table. nil: the method is not known there.
func (f front) endpoint(key string) func(http.ResponseWriter, *request) error {
	switch key {
	case "GET tags":
		return f.listTags
	case "GET manifests", "HEAD manifests":
		return f.getManifest
	case "PUT manifests":
		return f.putManifest
	case "DELETE manifests":
		return f.deleteManifest
	case "GET referrers":
		return f.listReferrers
	case "GET blobs", "HEAD blobs":
		return f.getBlob
	case "DELETE blobs":
		return f.deleteBlob
	case "POST uploads":
		return f.beginUpload
	case "GET uploads/id":
		return f.statUpload
	case "PATCH uploads/id":
		return f.patchUpload
	case "PUT uploads/id":
		return f.finishUpload
	case "DELETE uploads/id":
		return f.cancelUpload
	}
	return nil
}

// splitPath reads NAME/tags/list, NAME/manifests/REF, NAME/blobs/DIGEST, NAME/blobs/uploads/[ID] and NAME/referrers/DIGEST
// from the end: a name may itself have parts called so.
func splitPath(path string) (name, endpoint, ref string, ok bool) {
	parts := strings.Split(path, "/")
	n := len(parts)
	join := func(i int) string { return strings.Join(parts[:i], "/") }
	switch {
	case n >= 3 && parts[n-2] == "tags" && parts[n-1] == "list":
		return join(n - 2), "tags", "", true
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		return join(n - 3), "uploads", parts[n-1], true
	case n >= 3 && parts[n-2] == "blobs" && parts[n-1] == "uploads":
		return join(n - 2), "uploads", "", true
	case n >= 3 && (parts[n-2] == "manifests" || parts[n-2] == "blobs" || parts[n-2] == "referrers") && parts[n-1] != "":
		return join(n - 2), parts[n-2], parts[n-1], true
	}
	return "", "", "", false
}

var errToken = &ociError{http.StatusUnauthorized, "UNAUTHORIZED", "Your authorization token is not valid or has expired. Log in again."}

// caller authenticates, and lets a host of ECR's form choose the registry. That may be another account's: what the caller may there
// is asked of both accounts' policies (may).
func (f front) caller(hr *http.Request) (caller, error) {
	if isPublicHost(hr.Host) {
		return f.publicCaller(hr)
	}
	header := hr.Header.Get("Authorization")
	c, ok := f.logins.get(header, f.Clock.Now())
	if !ok {
		user, password, basic := hr.BasicAuth()
		if !basic {
			user, password = tokenUser, hr.URL.Query().Get("token")
			if password == "" || hr.Method != http.MethodGet {
				return caller{}, &ociError{http.StatusUnauthorized, "UNAUTHORIZED", "authentication required"}
			}
		}
		if c, ok = f.authenticate(hr.Context(), user, password); !ok {
			return caller{}, errToken
		}
		if basic {
			f.logins.put(header, c)
		}
	}
	if c.region == publicRegion {
		return caller{}, &ociError{http.StatusUnauthorized, "UNAUTHORIZED", "Your authorization token is one for public registries, at " + f.publicName() + "."}
	}
	if account, region, ok := ecrHost(hr.Host); ok {
		c.account, c.region = account, region
	}
	return c, nil
}

// find looks the repository up, or creates it for a push where a template, or the configuration, wants that.
func (f front) find(hr *http.Request, c caller, name string) (*Repository, error) {
	v := f.Store.View()
	repo, err := repository(v, c.account, c.region, name)
	if err == nil || hr.Method != http.MethodPost && hr.Method != http.MethodPut {
		return repo, err
	}
	if template(v, c.account, c.region, name, types.RCTAppliedForCreateOnPush) == nil && !f.CreateOnPush {
		return nil, err
	}
	if err := f.may(hr, c, "create", name); err != nil {
		return nil, err
	}
	return f.ensure(hr.Context(), c.account, c.region, name, types.RCTAppliedForCreateOnPush)
}

// cache brings a manifest from the upstream of a pull through cache rule, where there is a rule and need be.
func (f front) cache(hr *http.Request, c caller, name, ref string) error {
	u, ok := upstreamOf(f.Store.View(), c.account, c.region, name)
	if !ok {
		return nil
	}
	digest, tag, err := (&request{ref: ref}).reference()
	if err != nil {
		return nil // which getManifest says
	}
	if f.may(hr, c, "import", name) != nil {
		return nil // who may not import has what others imported
	}
	return f.pullThrough(hr.Context(), u, c.account, c.region, name, digest, tag)
}

// check answers GET /v2/: logged in.
func (f front) check(w http.ResponseWriter, hr *http.Request) error {
	if hr.Method != http.MethodGet && hr.Method != http.MethodHead {
		return &ociError{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported."}
	}
	writeJSON(w, "application/json", struct{}{})
	return nil
}

func writeJSON(w http.ResponseWriter, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // answers are plain data
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// ociError is an answer of the distribution protocol.
type ociError struct {
	status        int
	code, message string
}

func (e *ociError) Error() string { return e.code + ": " + e.message }

// ociErrors says how the domain's errors, which are ECR's, look here. Docker prints code and message.
var ociErrors = map[string]struct {
	status int
	code   string
}{
	"RepositoryNotFoundException":       {http.StatusNotFound, "NAME_UNKNOWN"},
	"ImageNotFoundException":            {http.StatusNotFound, "MANIFEST_UNKNOWN"},
	"LayersNotFoundException":           {http.StatusNotFound, "BLOB_UNKNOWN"},
	"ReferencedImagesNotFoundException": {http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN"},
	"ImageTagAlreadyExistsException":    {http.StatusBadRequest, "TAG_INVALID"},
	"ImageDigestDoesNotMatchException":  {http.StatusBadRequest, "DIGEST_INVALID"},
	"LimitExceededException":            {http.StatusForbidden, "DENIED"},
	"InvalidParameterException":         {http.StatusBadRequest, "MANIFEST_INVALID"},
}

func ociErrorOf(err error) *ociError {
	if e, ok := errors.AsType[*ociError](err); ok {
		return e
	}
	if e, ok := awserr.As(err); ok {
		if o, ok := ociErrors[e.Code]; ok {
			return &ociError{o.status, o.code, e.Message}
		}
	}
	if e := upstreamError(err); e != nil {
		return e
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, blob.ErrNoSpace):
		return &ociError{http.StatusInsufficientStorage, "UNKNOWN", "The registry has no space left on its disk."}
	case errors.Is(err, blob.ErrMismatch):
		return &ociError{http.StatusBadRequest, "DIGEST_INVALID", err.Error()}
	case errors.Is(err, blob.ErrBusy):
		return &ociError{http.StatusConflict, "BLOB_UPLOAD_INVALID", "Another request is writing to this upload."}
	case errors.Is(err, errLayerInUse), isInIndex(err):
		return &ociError{http.StatusForbidden, "DENIED", err.Error()}
	case errors.Is(err, state.ErrNotLeader):
		return &ociError{http.StatusServiceUnavailable, "UNAVAILABLE", "The cluster has no leader just now. Try again."}
	case errors.Is(err, bucket.ErrUnavailable):
		return &ociError{http.StatusServiceUnavailable, "UNAVAILABLE", "The registry's object store is not available just now. Try again."}
	case errors.Is(err, errTooFewCopies):
		return &ociError{http.StatusServiceUnavailable, "UNAVAILABLE", errTooFewCopies.Error()}
	case errors.As(err, &tooLarge):
		return &ociError{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("The body has more than %d bytes.", tooLarge.Limit)}
	}
	return nil
}

func (f front) fail(w http.ResponseWriter, hr *http.Request, err error) {
	e := ociErrorOf(err)
	if e == nil {
		if hr.Context().Err() == nil {
			f.Log.Error("registry request failed", "method", hr.Method, "path", hr.URL.Path, "error", err)
		}
		e = &ociError{http.StatusInternalServerError, "UNKNOWN", "internal error"}
	}
	h := w.Header()
	if e.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "2")
	}
	if f.Bucket != nil && errors.Is(err, blob.ErrNoSpace) {
		f.Bucket.Pressed() // what fills the disk may be the cache
	}
	if errors.Is(err, state.ErrNotLeader) {
		h.Set(api.NotLeaderHeader, "1") // whoever has passed the request to this server finds another
	}
	if e.status == http.StatusUnauthorized {
		scheme := "http"
		if f.TLS {
			scheme = "https"
		}
		challenge := fmt.Sprintf(`Basic realm="%s://%s/",service="ecr"`, scheme, hr.Host)
		if isPublicHost(hr.Host) && hr.URL.Path != "/v2/"+tokenPath {
			challenge = fmt.Sprintf(`Bearer realm="%s://%s/v2/%s",service="%s",scope="aws"`, scheme, hr.Host, tokenPath, hr.Host)
		}
		h.Set("WWW-Authenticate", challenge)
	}
	body, merr := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": e.code, "message": e.message}}})
	if merr != nil {
		panic(merr)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Del("ETag")
	w.WriteHeader(e.status)
	w.Write(body)
}
