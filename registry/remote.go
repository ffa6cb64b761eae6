package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/sdkhttp"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// Remote is another cluster, or a registry of AWS itself, as replication reaches it: ECR's API for a token and for repositories
// that are not there, the distribution protocol for images.
type Remote struct {
	Endpoint string // of the ECR API: "https://ecr.eu.example.com:4566"
	// Registry is the URL under which /v2/ is; empty: Endpoint.
	Registry        string
	AccessKeyID     string
	SecretAccessKey string
	Client          *http.Client // nil: http.DefaultClient
	// Accounts are keys for the registries of other accounts there, by account. Without one, what an account sends goes where the key above
	// leads, and under its own number only.
	Accounts map[string]RemoteAccount
}

// RemoteAccount is a key for an account's registry, and whose images may go there: what registry policies say within a cluster.
type RemoteAccount struct {
	AccessKeyID     string
	SecretAccessKey string
	From            []string // accounts of this cluster
}

// wholeBlob is up to which size a blob is sent in one request. A larger one has an upload session, which an interruption does
// not cost.
const wholeBlob = 1 << 20

// remote speaks to one remote registry.
type remote struct {
	Remote
	ecr      *ecr.Client
	clock    clock.Clock
	accounts map[string]*remote
	mu       sync.Mutex
	password string
	expires  time.Time
}

func newRemote(region string, r Remote, clk clock.Clock) *remote {
	if r.Client == nil {
		r.Client = http.DefaultClient
	}
	if r.Registry == "" {
		r.Registry = r.Endpoint
	}
	key := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: r.AccessKeyID, SecretAccessKey: r.SecretAccessKey}, nil
	})
	c := &remote{Remote: r, clock: clk, accounts: map[string]*remote{}, ecr: ecr.New(ecr.Options{BaseEndpoint: &r.Endpoint, Region: region, Credentials: key, HTTPClient: sdkhttp.New(r.Client), Retryer: aws.NopRetryer{}})}
	for account, a := range r.Accounts {
		own := r
		own.Accounts, own.AccessKeyID, own.SecretAccessKey = nil, a.AccessKeyID, a.SecretAccessKey
		c.accounts[account] = newRemote(region, own, clk)
	}
	return c
}

// of is how images of an account get to a registry there; nil: they may not.
func (c *remote) of(account, from string) *remote {
	switch a, ok := c.Accounts[account]; {
	case ok && slices.Contains(a.From, from):
		return c.accounts[account]
	case !ok && account == from:
		return c
	}
	return nil
}

// host is the registry's host:port, as image names have it.
func (c *remote) host() string {
	u, err := url.Parse(c.Registry)
	if err != nil {
		return ""
	}
	return u.Host
}

// remoteError is a remote registry's refusal, or that it could not be reached.
type remoteError struct {
	doing        string
	status       int // 0: no answer
	code, detail string
}

func (e *remoteError) Error() string {
	if e.status == 0 {
		return fmt.Sprintf("%s: %s", e.doing, e.detail)
	}
	return fmt.Sprintf("%s: %d %s: %s", e.doing, e.status, e.code, e.detail)
}

// refused says that the same request would be answered the same.
func (e *remoteError) refused() bool {
	return e.status >= 400 && e.status < 500 && e.status != http.StatusRequestTimeout && e.status != http.StatusTooManyRequests
}

func (e *remoteError) failureCode() string {
	switch {
	case e.status == http.StatusUnauthorized || e.status == http.StatusForbidden:
		return "AccessDenied"
	case e.status == http.StatusTooManyRequests:
		return "TooManyRequests"
	case e.refused():
		return "Refused"
	}
	return "DestinationUnavailable"
}

// login gets a token, or takes the one that is there while it is good for some time.
func (c *remote) login(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock.Now().Add(time.Hour).Before(c.expires) {
		return c.password, nil
	}
	out, err := c.ecr.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", apiError("get a token", err)
	}
	if len(out.AuthorizationData) == 0 {
		return "", &remoteError{doing: "get a token", detail: "the answer has none"}
	}
	pair, err := base64.StdEncoding.DecodeString(aws.ToString(out.AuthorizationData[0].AuthorizationToken))
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}
	_, c.password, _ = strings.Cut(string(pair), ":")
	c.expires = aws.ToTime(out.AuthorizationData[0].ExpiresAt)
	return c.password, nil
}

// forget drops a token that was not accepted.
func (c *remote) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expires = time.Time{}
}

// apiError is a failed call of the ECR API.
func apiError(doing string, err error) error {
	out := &remoteError{doing: doing, detail: err.Error()}
	var withStatus interface{ HTTPStatusCode() int }
	if errors.As(err, &withStatus) {
		out.status = withStatus.HTTPStatusCode()
	}
	var withCode interface{ ErrorCode() string }
	if errors.As(err, &withCode) {
		out.code = withCode.ErrorCode()
		switch out.code { // which the JSON protocol answers with 400
		case "UnrecognizedClientException", "InvalidSignatureException", "AccessDeniedException":
			out.status = http.StatusForbidden
		}
	}
	return out
}

// createRepository is for a repository that is not there; the remote's own template for creation on push would have made it.
func (c *remote) createRepository(ctx context.Context, name string) error {
	_, err := c.ecr.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
	var code interface{ ErrorCode() string }
	if err == nil || errors.As(err, &code) && code.ErrorCode() == "RepositoryAlreadyExistsException" {
		return nil
	}
	return apiError("create repository "+name, err)
}

// do sends a request; the caller closes the answer's body. at is a path, or what a Location header said.
func (c *remote) do(ctx context.Context, method, at string, header http.Header, body io.Reader, length int64) (*http.Response, error) {
	password, err := c.login(ctx)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(c.Registry)
	if err != nil {
		return nil, fmt.Errorf("the remote's URL: %w", err)
	}
	u, err := base.Parse(at)
	if err != nil {
		return nil, fmt.Errorf("what the remote calls a location: %w", err)
	}
	if u.Host != base.Host {
		return nil, &remoteError{doing: method, status: http.StatusBadGateway, detail: "the remote names a location of another host: " + u.Host} // which is not to have the token
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = length
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.SetBasicAuth(tokenUser, password)
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, &remoteError{doing: method + " " + u.Path, detail: err.Error()}
	}
	if resp.StatusCode == http.StatusUnauthorized {
		c.forget()
	}
	return resp, nil
}

// want is do for one of the statuses; any other is an error.
func (c *remote) want(ctx context.Context, method, at string, header http.Header, body io.Reader, length int64, statuses ...int) (*http.Response, error) {
	resp, err := c.do(ctx, method, at, header, body, length)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // drained, so that the connection is used again
	for _, s := range statuses {
		if resp.StatusCode == s {
			return resp, nil
		}
	}
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	e := &remoteError{doing: method + " " + at, status: resp.StatusCode}
	if json.Unmarshal(text, &answer) == nil && len(answer.Errors) > 0 {
		e.code, e.detail = answer.Errors[0].Code, answer.Errors[0].Message
	}
	return nil, e
}

// hasBlob asks whether the remote repository has the blob.
func (c *remote) hasBlob(ctx context.Context, repo string, d blob.Digest) (bool, error) {
	resp, err := c.want(ctx, http.MethodHead, "/v2/"+repo+"/blobs/"+string(d), nil, nil, 0, http.StatusOK, http.StatusNotFound)
	return err == nil && resp.StatusCode == http.StatusOK, err
}

// pushBlob sends a blob that the remote does not have. session is an upload that an earlier attempt began, or empty; begun is told
// of a new one.
func (c *remote) pushBlob(ctx context.Context, repo string, d blob.Digest, content io.ReadSeeker, size int64, session string, begun func(location string) error) error {
	if size <= wholeBlob {
		_, err := c.want(ctx, http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+string(d), octets(), content, size, http.StatusCreated)
		return err
	}
	offset := int64(0)
	if session != "" {
		resp, err := c.want(ctx, http.MethodGet, session, nil, nil, 0, http.StatusNoContent, http.StatusNotFound)
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusNotFound {
			session = "" // it has expired
		} else {
			offset = receivedBytes(resp)
		}
	}
	if session == "" {
		resp, err := c.want(ctx, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, http.NoBody, 0, http.StatusAccepted)
		if err != nil {
			return err
		}
		session = resp.Header.Get("Location")
		if err := begun(session); err != nil {
			return err
		}
	}
	for offset < size {
		if _, err := content.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("read blob: %w", err)
		}
		header := octets()
		header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, size-1))
		resp, err := c.want(ctx, http.MethodPatch, session, header, io.LimitReader(content, size-offset), size-offset, http.StatusAccepted, http.StatusRequestedRangeNotSatisfiable)
		if err != nil {
			return err
		}
		if l := resp.Header.Get("Location"); l != "" {
			session = l
		}
		if resp.StatusCode == http.StatusAccepted {
			break
		}
		at := receivedBytes(resp)
		if at == offset { // "0-0" says one byte, or none
			at = 1 - offset
		}
		offset = at
	}
	at, err := url.Parse(session)
	if err != nil {
		return fmt.Errorf("what the remote calls a location: %w", err)
	}
	query := at.Query()
	query.Set("digest", string(d))
	at.RawQuery = query.Encode()
	_, err = c.want(ctx, http.MethodPut, at.String(), octets(), http.NoBody, 0, http.StatusCreated)
	return err
}

func octets() http.Header { return http.Header{"Content-Type": {"application/octet-stream"}} }

// receivedBytes is how many bytes of an upload the remote has, by its Range header.
func receivedBytes(resp *http.Response) int64 {
	_, last, _ := strings.Cut(resp.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n == 0 {
		return 0
	}
	return n + 1
}

// pushManifest puts a manifest under a digest or a tag.
func (c *remote) pushManifest(ctx context.Context, repo, reference, mediaType string, body []byte) error {
	_, err := c.want(ctx, http.MethodPut, "/v2/"+repo+"/manifests/"+reference, http.Header{"Content-Type": {mediaType}}, bytes.NewReader(body), int64(len(body)), http.StatusCreated)
	return err
}

// sendImage brings an image and its tags to the remote cluster: blobs, what is inside an index, the manifest, tags. Whatever is
// there already is left out, and nothing is done twice after an interruption but the question.
func (w *replicator) sendImage(ctx context.Context, e *Replication, from *Repository, to *remote) error {
	m, err := image(w.Store.View(), from, e.Digest, "")
	if err != nil {
		return err
	}
	err = w.sendManifest(ctx, e, from, to, m)
	if r, ok := errors.AsType[*remoteError](err); ok && r.code == "NAME_UNKNOWN" {
		if err = to.createRepository(ctx, from.Name); err == nil {
			err = w.sendManifest(ctx, e, from, to, m)
		}
	}
	if err != nil {
		return err
	}
	body, err := w.content(ctx, m)
	if err != nil {
		return err
	}
	for _, tag := range tagsOf(w.Store.View(), m) {
		err := to.pushManifest(ctx, from.Name, tag, m.MediaType, body)
		if r, ok := errors.AsType[*remoteError](err); ok && r.code == "TAG_INVALID" {
			continue // immutable there: as in ECR, the image arrives without it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *replicator) sendManifest(ctx context.Context, e *Replication, from *Repository, to *remote, m *Manifest) error {
	for _, child := range m.Manifests {
		c, err := image(w.Store.View(), from, child, "")
		if err != nil {
			return err
		}
		if err := w.sendManifest(ctx, e, from, to, c); err != nil {
			return err
		}
	}
	for _, d := range m.Blobs {
		if err := w.sendBlob(ctx, e, from, to, blob.Digest(d)); err != nil {
			return err
		}
	}
	body, err := w.content(ctx, m)
	if err != nil {
		return err
	}
	return to.pushManifest(ctx, from.Name, m.Digest, m.MediaType, body)
}

func (w *replicator) sendBlob(ctx context.Context, e *Replication, from *Repository, to *remote, d blob.Digest) error {
	if has, err := to.hasBlob(ctx, from.Name, d); has || err != nil {
		return err
	}
	lease, err := w.Blobs.Lease(ctx, d) // it stays here until it is open
	if err != nil {
		return err
	}
	defer lease.Release()
	if err := w.here(ctx, d); err != nil {
		return err
	}
	content, info, err := w.Blobs.Open(d)
	if err != nil {
		return fmt.Errorf("open blob %s: %w", d, err)
	}
	defer content.Close()
	var session string
	if now, ok := Replications.Get(w.Store.View(), Replications.Key(e)); ok {
		if digest, location, _ := strings.Cut(now.Upload, " "); digest == string(d) {
			session = location
		}
	}
	return to.pushBlob(ctx, from.Name, d, content, info.Size, session, func(location string) error {
		return w.noteUpload(ctx, e, string(d)+" "+location)
	})
}

// noteUpload makes an upload session survive a restart of this side.
func (w *replicator) noteUpload(ctx context.Context, e *Replication, upload string) error {
	_, err := w.Store.Update(ctx, func(tx *state.Tx) error {
		now, ok := Replications.Get(tx, Replications.Key(e))
		if !ok {
			return errNotWanted
		}
		now = proto.CloneOf(now)
		now.Upload = upload
		Replications.Put(tx, now)
		return nil
	})
	return err
}
