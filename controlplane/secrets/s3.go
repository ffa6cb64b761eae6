package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// S3 reads objects of the S3-compatible store that the operator names, by signed requests with the bucket in the path, which every such store
// answers.
type S3 struct {
	Endpoint                     *url.URL // scheme, host and perhaps a path below which the store is
	Region                       string
	AccessKeyID, SecretAccessKey string // empty: requests are not signed
	Clock                        clock.Clock
}

// emptyHash is the SHA-256 of nothing, which is what a GET sends.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var s3Client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// Get implements Objects.
func (s *S3) Get(ctx context.Context, bucket, key string, most int64) ([]byte, error) {
	u := *s.Endpoint
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + bucket + "/" + key
	u.RawPath = strings.TrimSuffix(s.Endpoint.EscapedPath(), "/") + "/" + escapePath(bucket) + "/" + escapePath(key)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Amz-Content-Sha256", emptyHash)
	if s.AccessKeyID != "" {
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }) // S3 signs the path as it is sent
		err := signer.SignHTTP(ctx, aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey}, req, emptyHash, "s3", s.Region, s.Clock.Now())
		if err != nil {
			return nil, fmt.Errorf("sign the request: %w", err)
		}
	}
	res, err := s3Client.Do(req)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err // what it says besides is the address of the store, which is the operator's business
		}
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the S3 endpoint answered %s", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	return text, err
}

// escapePath escapes all but what S3 leaves as it is in the path that is signed.
func escapePath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
