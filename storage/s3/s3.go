// Package s3 speaks to one bucket of an S3-compatible object store: no more of the protocol than blobs need. It knows no service, and nothing of
// what its objects mean.
//
// Invariants:
//   - Every body that is sent is signed by its SHA-256, so the store refuses what was changed on its way.
//   - What a request did is unknown after an error other than ErrNotFound and Error with a status below 500: callers make theirs repeatable.
//
// docs/design/storage.md says why it is not an SDK.
package s3

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// ErrNotFound: the bucket has no such object.
var ErrNotFound = errors.New("no such object")

// Error is an answer of the store that refuses.
type Error struct {
	Doing         string
	Status        int
	Code, Message string // as the store says, if it does
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: the object store answered %d", e.Doing, e.Status)
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// passing says whether the same request may succeed in a while.
func (e *Error) passing() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Code == "RequestTimeout" || e.Code == "RequestTimeTooSkewed"
}

// Object is what the store says of one.
type Object struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Config names the bucket. What has no default is required.
type Config struct {
	Endpoint *url.URL // scheme, host, and perhaps a path below which the store is
	Region   string
	Bucket   string
	// VirtualHost puts the bucket in front of the host instead of into the path.
	VirtualHost bool
	Credentials *Credentials
	Transport   http.RoundTripper // default: NewTransport(nil)
	// Pause is the first one before a request that failed is sent again; the next are twice as long each. Default 200 ms.
	Pause time.Duration
	Clock clock.Clock // default: the machine's
}

// Client is safe for concurrent use.
type Client struct {
	Config
	http   *http.Client
	signer *v4.Signer

	mu       sync.Mutex
	underway map[string]bool // ids of this client's multipart uploads
}

// New makes a client; it asks nothing yet.
func New(c Config) *Client {
	c.Pause = cmp.Or(c.Pause, 200*time.Millisecond)
	if c.Transport == nil {
		c.Transport = NewTransport(nil)
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	return &Client{
		Config: c, underway: map[string]bool{},
		http:   &http.Client{Transport: c.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }), // S3 signs the path as it is sent
	}
}

// attempts is how often a request is sent.
const attempts = 4

// request is one to the bucket. Keys are made of characters that need no escaping.
type request struct {
	method, key string
	query       url.Values
	header      http.Header
	size        int64
	sum         string                        // SHA-256 of the body in hexadecimal digits; empty: there is none
	body        func() (io.ReadCloser, error) // called for each attempt
}

const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// do sends the request until it is answered for good. The caller closes the answer's body.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		a, err := c.once(ctx, r)
		e, refused := errors.AsType[*Error](err)
		if err == nil || errors.Is(err, ErrNotFound) || ctx.Err() != nil || refused && !e.passing() || attempt == attempts {
			return a, err
		}
		pause := c.Pause << (attempt - 1)
		select {
		case <-c.Clock.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

func (c *Client) once(ctx context.Context, r request) (*http.Response, error) {
	doing := r.method + " " + r.key
	req := (&http.Request{Method: r.method, URL: c.url(r.key, r.query), Header: http.Header{}}).WithContext(ctx)
	for name, values := range r.header {
		req.Header[name] = values
	}
	sum := emptySum
	if r.body != nil {
		body, err := r.body()
		if err != nil {
			return nil, err
		}
		sum, req.Body, req.ContentLength = r.sum, body, r.size
		if r.size == 0 {
			body.Close()
			req.Body = http.NoBody
		}
	}
	req.Header.Set("X-Amz-Content-Sha256", sum)
	key, err := c.Credentials.get()
	if err != nil {
		return nil, err
	}
	if err := c.signer.SignHTTP(ctx, key, req, sum, "s3", c.Region, c.Clock.Now()); err != nil {
		return nil, fmt.Errorf("sign %s: %w", doing, err)
	}
	a, err := c.http.Do(req)
	if err != nil {
		if in, ok := errors.AsType[*url.Error](err); ok {
			err = in.Err // the rest of it is what doing says
		}
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if a.StatusCode < 300 {
		return a, nil
	}
	defer a.Body.Close()
	if a.StatusCode == http.StatusForbidden {
		c.Credentials.stale()
	}
	if a.StatusCode == http.StatusNotFound && r.query.Get("uploadId") == "" {
		if e := refusal(doing, a); e.Code == "NoSuchBucket" {
			return nil, e
		}
		return nil, ErrNotFound
	}
	return nil, refusal(doing, a)
}

func (c *Client) url(key string, query url.Values) *url.URL {
	u := &url.URL{Scheme: c.Endpoint.Scheme, Host: c.Endpoint.Host, Path: strings.TrimSuffix(c.Endpoint.Path, "/"), RawQuery: query.Encode()}
	if c.VirtualHost {
		u.Host = c.Bucket + "." + u.Host
	} else {
		u.Path += "/" + c.Bucket
	}
	u.Path += "/" + key
	return u
}

// maxAnswer bounds what is read of an answer that is no object. A page of a listing has less than a megabyte.
const maxAnswer = 4 << 20

// refusal reads the store's error.
func refusal(doing string, a *http.Response) *Error {
	e := &Error{Doing: doing, Status: a.StatusCode}
	var said struct{ Code, Message string }
	if xml.NewDecoder(io.LimitReader(a.Body, maxAnswer)).Decode(&said) == nil {
		e.Code, e.Message = said.Code, said.Message
	}
	return e
}

// answer sends a request and reads its answer's document into one (nil: there is none to read).
func (c *Client) answer(ctx context.Context, r request, into any) error {
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.method, r.key, err)
	}
	// Some requests are answered 200 before it is known how they end.
	var failed struct {
		XMLName       xml.Name
		Code, Message string
	}
	if xml.Unmarshal(text, &failed) == nil && failed.XMLName.Local == "Error" {
		return &Error{Doing: r.method + " " + r.key, Status: http.StatusInternalServerError, Code: failed.Code, Message: failed.Message}
	}
	if into == nil {
		return nil
	}
	if err := xml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", r.method, r.key, err)
	}
	return nil
}

// Head says whether the object is there.
func (c *Client) Head(ctx context.Context, key string) (Object, error) {
	a, err := c.do(ctx, request{method: http.MethodHead, key: key})
	if err != nil {
		return Object{}, err
	}
	defer a.Body.Close()
	return object(key, a), nil
}

func object(key string, a *http.Response) Object {
	modified, _ := http.ParseTime(a.Header.Get("Last-Modified")) // none: very old
	return Object{Key: key, Size: a.ContentLength, Modified: modified}
}

// Get reads an object, from a byte on. A body that ends early is an error of its reader. The object's size is that of what is read.
func (c *Client) Get(ctx context.Context, key string, from int64) (io.ReadCloser, Object, error) {
	r := request{method: http.MethodGet, key: key, header: http.Header{"Accept-Encoding": {"identity"}}}
	if from > 0 {
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, Object{}, err
	}
	if from > 0 && a.StatusCode != http.StatusPartialContent {
		a.Body.Close()
		return nil, Object{}, fmt.Errorf("GET %s: the object store gives no parts of objects", key)
	}
	if a.ContentLength < 0 {
		a.Body.Close()
		return nil, Object{}, fmt.Errorf("GET %s: the object store does not say how long it is", key)
	}
	return a.Body, object(key, a), nil
}

// Part is a piece of content: so many bytes with a SHA-256.
type Part struct {
	Size int64
	Sum  string // hexadecimal digits
}

// Put writes an object in one request, in place of what has its name. open is called for each attempt.
func (c *Client) Put(ctx context.Context, key string, content Part, open func() (io.ReadCloser, error)) error {
	return c.PutWith(ctx, key, nil, content, open)
}

// PutWith is Put with headers that the store keeps, or acts by.
func (c *Client) PutWith(ctx context.Context, key string, header http.Header, content Part, open func() (io.ReadCloser, error)) error {
	return c.answer(ctx, request{method: http.MethodPut, key: key, header: header, size: content.Size, sum: content.Sum, body: open}, nil)
}

// PutNew writes a small object unless one has its name; stores that do not know of conditions overwrite it.
func (c *Client) PutNew(ctx context.Context, key, content string) error {
	err := c.answer(ctx, request{
		method: http.MethodPut, key: key, size: int64(len(content)), sum: sumOf([]byte(content)), header: http.Header{"If-None-Match": {"*"}},
		body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}, nil)
	if e, ok := errors.AsType[*Error](err); ok && (e.Status == http.StatusPreconditionFailed || e.Status == http.StatusConflict) {
		return nil // somebody's is there
	}
	return err
}

// MaxCopy is up to what size objects can be copied.
const MaxCopy = 5 << 30

// Copy has the store copy an object. Onto itself that makes it as if written now.
func (c *Client) Copy(ctx context.Context, from Object, to string) error {
	if from.Size > MaxCopy {
		return fmt.Errorf("copy %s: it has %d bytes, and the store copies %d at most", from.Key, from.Size, int64(MaxCopy))
	}
	return c.answer(ctx, request{method: http.MethodPut, key: to, header: http.Header{
		"X-Amz-Copy-Source": {"/" + c.Bucket + "/" + from.Key}, "X-Amz-Metadata-Directive": {"REPLACE"}, "Content-Type": {"application/octet-stream"},
	}}, nil)
}

// Delete removes an object, which need not be there.
func (c *Client) Delete(ctx context.Context, key string) error {
	err := c.answer(ctx, request{method: http.MethodDelete, key: key}, nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// List is a page of the objects whose keys begin with prefix and come after after, in the order of their keys. more: there are further ones.
func (c *Client) List(ctx context.Context, prefix, after string) (page []Object, more bool, err error) {
	query := url.Values{"list-type": {"2"}, "prefix": {prefix}, "max-keys": {strconv.Itoa(pageSize)}}
	if after != "" {
		query.Set("start-after", after)
	}
	var said struct {
		IsTruncated bool
		Contents    []struct {
			Key          string
			Size         int64
			LastModified time.Time
		}
	}
	if err := c.answer(ctx, request{method: http.MethodGet, query: query}, &said); err != nil {
		return nil, false, fmt.Errorf("list objects: %w", err)
	}
	for _, o := range said.Contents {
		if o.Key <= after || !strings.HasPrefix(o.Key, prefix) {
			return nil, false, fmt.Errorf("list objects: the object store lists %q after %q below %q", o.Key, after, prefix)
		}
		page = append(page, Object{o.Key, o.Size, o.LastModified})
		after = o.Key
	}
	if said.IsTruncated && len(page) == 0 {
		return nil, false, errors.New("list objects: the object store has more and lists nothing")
	}
	return page, said.IsTruncated, nil
}

const pageSize = 1000
