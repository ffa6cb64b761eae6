// Package s3test is an S3-compatible store for tests: a server in the test's process that holds requests to their signatures, and faults that a test
// puts in front of it or of any other such store. TestContract (of package s3) holds it, and a store that others have written, to the same behaviour.
package s3test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/storage/s3"
)

// What a store is reached with.
const (
	AccessKeyID     = "STOREKEY"
	SecretAccessKey = "store-secret"
	Region          = "eu-north-1"
	Bucket          = "layers"
)

// Store is a bucket. Objects are files of the test's folder.
type Store struct {
	*Faults
	URL      string
	Now      func() time.Time // of LastModified
	PageSize int              // of listings, if smaller than what is asked for
	MinPart  int64
	dir      string

	mu      sync.Mutex
	next    int
	objects map[string]object
	uploads map[string]*upload
}

type object struct {
	file     string
	size     int64
	tag      string
	modified time.Time
}

type upload struct {
	key   string
	began time.Time
	parts map[int]object
}

// Start runs a store until the test ends.
func Start(t testing.TB) *Store {
	t.Helper()
	s := &Store{dir: t.TempDir(), Now: time.Now, objects: map[string]object{}, uploads: map[string]*upload{}, PageSize: 1000, MinPart: 5 << 20}
	s.Faults = NewFaults(http.HandlerFunc(s.serve))
	server := httptest.NewServer(s.Faults)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Client speaks to a bucket at the address.
func Client(t testing.TB, address string) *s3.Client {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := s3.NewTransport(nil)
	t.Cleanup(transport.CloseIdleConnections)
	return s3.New(s3.Config{Endpoint: u, Region: Region, Bucket: Bucket, Credentials: s3.FixedCredentials(AccessKeyID, SecretAccessKey, ""), Transport: transport, Pause: time.Millisecond})
}

// Client speaks to this store.
func (s *Store) Client(t testing.TB) *s3.Client { return Client(t, s.URL) }

// Keys are those of all objects, sorted.
func (s *Store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Uploads is how many multipart uploads are open.
func (s *Store) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Spoil changes the first byte of an object behind everybody's back.
func (s *Store) Spoil(t testing.TB, key string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.objects[key].file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
}

// Lose removes an object behind everybody's back.
func (s *Store) Lose(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
}

// Age makes all objects and uploads older.
func (s *Store) Age(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		o.modified = o.modified.Add(-by)
		s.objects[key] = o
	}
	for _, u := range s.uploads {
		u.began = u.began.Add(-by)
	}
}

func (s *Store) serve(w http.ResponseWriter, r *http.Request) {
	if code := signed(r); code != "" {
		fail(w, r, http.StatusForbidden, code)
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/"+Bucket+"/")
	if !ok {
		fail(w, r, http.StatusNotFound, "NoSuchBucket")
		return
	}
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && key == "" && q.Has("uploads"):
		s.listUploads(w, q)
	case r.Method == http.MethodGet && key == "":
		s.list(w, q)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.get(w, r, key)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		s.copy(w, r, key)
	case r.Method == http.MethodPut:
		s.put(w, r, key)
	case r.Method == http.MethodPost && q.Has("uploads"):
		s.mu.Lock()
		s.next++
		id := fmt.Sprintf("upload-%d", s.next)
		s.uploads[id] = &upload{key: key, began: s.Now(), parts: map[int]object{}}
		s.mu.Unlock()
		answer(w, "InitiateMultipartUploadResult", "<UploadId>"+id+"</UploadId>")
	case r.Method == http.MethodPost && q.Has("uploadId"):
		s.complete(w, r, key)
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.uploads[q.Get("uploadId")] == nil {
			fail(w, r, http.StatusNotFound, "NoSuchUpload")
			return
		}
		delete(s.uploads, q.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		s.Lose(key)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, r, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

// signed holds a request against its signature, which the SDK's signer makes again of what the request says that it has signed.
func signed(r *http.Request) (code string) {
	var id, headers string
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "Credential":
			id = value
		case "SignedHeaders":
			headers = value
		}
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || id != strings.Join([]string{AccessKeyID, at.Format("20060102"), Region, "s3", "aws4_request"}, "/") {
		return "InvalidAccessKeyId"
	}
	if d := time.Since(at); d > 15*time.Minute || d < -15*time.Minute {
		return "RequestTimeTooSkewed"
	}
	again := &http.Request{Method: r.Method, URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}, Host: r.Host, Header: http.Header{}}
	for name := range strings.SplitSeq(headers, ";") {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !slices.Contains(strings.Split(headers, ";"), strings.ToLower(name)) {
			return "AccessDenied"
		}
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(r.Context(), aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}, again, r.Header.Get("X-Amz-Content-Sha256"), "s3", Region, at); err != nil ||
		again.Header.Get("Authorization") != r.Header.Get("Authorization") {
		return "SignatureDoesNotMatch"
	}
	return ""
}

// receive puts a body into a file, if it is what the signature says.
func (s *Store) receive(w http.ResponseWriter, r *http.Request) (object, bool) {
	s.mu.Lock()
	s.next++
	name := filepath.Join(s.dir, strconv.Itoa(s.next))
	s.mu.Unlock()
	f, err := os.Create(name)
	if err != nil {
		fail(w, r, http.StatusInternalServerError, "InternalError")
		return object{}, false
	}
	defer f.Close()
	tag, sum := md5.New(), sha256.New()
	n, err := io.Copy(io.MultiWriter(f, tag, sum), r.Body)
	switch {
	case err != nil || n != r.ContentLength:
		fail(w, r, http.StatusBadRequest, "IncompleteBody")
	case hex.EncodeToString(sum.Sum(nil)) != r.Header.Get("X-Amz-Content-Sha256"):
		fail(w, r, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
	default:
		return object{name, n, `"` + hex.EncodeToString(tag.Sum(nil)) + `"`, s.Now()}, true
	}
	return object{}, false
}

func (s *Store) put(w http.ResponseWriter, r *http.Request, key string) {
	o, ok := s.receive(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := r.URL.Query().Get("uploadId"); id != "" {
		number, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
		switch u := s.uploads[id]; {
		case u == nil || u.key != key:
			fail(w, r, http.StatusNotFound, "NoSuchUpload")
			return
		case err != nil || number < 1 || number > 10_000:
			fail(w, r, http.StatusBadRequest, "InvalidArgument")
			return
		default:
			u.parts[number] = o
		}
	} else if _, there := s.objects[key]; there && r.Header.Get("If-None-Match") == "*" {
		fail(w, r, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	} else {
		s.objects[key] = o
	}
	w.Header().Set("ETag", o.tag)
}

func (s *Store) copy(w http.ResponseWriter, r *http.Request, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := strings.CutPrefix(r.Header.Get("X-Amz-Copy-Source"), "/"+Bucket+"/")
	o, ok := s.objects[from]
	switch {
	case !ok:
		fail(w, r, http.StatusNotFound, "NoSuchKey")
		return
	case from == key && r.Header.Get("X-Amz-Metadata-Directive") != "REPLACE":
		fail(w, r, http.StatusBadRequest, "InvalidRequest")
		return
	}
	o.modified = s.Now()
	s.objects[key] = o
	answer(w, "CopyObjectResult", "<ETag>"+o.tag+"</ETag>")
}

func (s *Store) get(w http.ResponseWriter, r *http.Request, key string) {
	s.mu.Lock()
	o, ok := s.objects[key]
	s.mu.Unlock()
	if !ok {
		fail(w, r, http.StatusNotFound, "NoSuchKey")
		return
	}
	f, err := os.Open(o.file)
	if err != nil {
		fail(w, r, http.StatusInternalServerError, "InternalError")
		return
	}
	defer f.Close()
	w.Header().Set("ETag", o.tag)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", o.modified, f)
}

func (s *Store) complete(w http.ResponseWriter, r *http.Request, key string) {
	var doc struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	text, err := io.ReadAll(r.Body)
	if err != nil || xml.Unmarshal(text, &doc) != nil || len(doc.Part) == 0 {
		fail(w, r, http.StatusBadRequest, "MalformedXML")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.URL.Query().Get("uploadId")
	u := s.uploads[id]
	if u == nil || u.key != key {
		fail(w, r, http.StatusNotFound, "NoSuchUpload")
		return
	}
	s.next++
	out, err := os.Create(filepath.Join(s.dir, strconv.Itoa(s.next)))
	if err != nil {
		fail(w, r, http.StatusInternalServerError, "InternalError")
		return
	}
	defer out.Close()
	o := object{file: out.Name(), tag: fmt.Sprintf(`"%s-%d"`, id, len(doc.Part)), modified: u.began} // as with S3
	for i, p := range doc.Part {
		part, ok := u.parts[p.PartNumber]
		switch {
		case !ok || part.tag != p.ETag:
			fail(w, r, http.StatusBadRequest, "InvalidPart")
			return
		case i > 0 && p.PartNumber <= doc.Part[i-1].PartNumber:
			fail(w, r, http.StatusBadRequest, "InvalidPartOrder")
			return
		case i < len(doc.Part)-1 && part.size < s.MinPart:
			fail(w, r, http.StatusBadRequest, "EntityTooSmall")
			return
		}
		b, err := os.ReadFile(part.file)
		if err == nil {
			_, err = out.Write(b)
		}
		if err != nil {
			fail(w, r, http.StatusInternalServerError, "InternalError")
			return
		}
		o.size += part.size
	}
	s.objects[key] = o
	delete(s.uploads, id)
	answer(w, "CompleteMultipartUploadResult", "<ETag>"+strings.Trim(o.tag, `"`)+"</ETag>")
}

func (s *Store) list(w http.ResponseWriter, q url.Values) {
	asked, _ := strconv.Atoi(q.Get("max-keys"))
	var b bytes.Buffer
	s.mu.Lock()
	defer s.mu.Unlock()
	n, more := 0, false
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("start-after") {
			continue
		}
		if more = n == min(asked, s.PageSize); more {
			break
		}
		n++
		o := s.objects[key]
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>%d</Size><LastModified>%s</LastModified></Contents>", key, o.size, o.modified.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	answer(w, "ListBucketResult", fmt.Sprintf("<IsTruncated>%t</IsTruncated>%s", more, b.String()))
}

func (s *Store) listUploads(w http.ResponseWriter, q url.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	for id, u := range s.uploads {
		if strings.HasPrefix(u.key, q.Get("prefix")) {
			fmt.Fprintf(&b, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", u.key, id, u.began.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	answer(w, "ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>"+b.String())
}

func answer(w http.ResponseWriter, name, content string) {
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, "%s<%s>%s</%s>", xml.Header, name, content, name)
}

func fail(w http.ResponseWriter, r *http.Request, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>of the test's store</Message></Error>", xml.Header, code)
	}
}
