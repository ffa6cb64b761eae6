package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/controlplane/secrets"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/s3"
)

// objectsFlags name the S3-compatible store that files of environment variables are read from, and sessions of ECS Exec are kept in.
type objectsFlags struct{ endpoint, region string }

func (f *objectsFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.endpoint, "s3-endpoint", "", "URL of the S3-compatible store that environmentFiles are read from, and that buckets of executeCommandConfiguration are in, with the credentials $NEARGATE_S3_ACCESS_KEY_ID and $NEARGATE_S3_SECRET_ACCESS_KEY (default: there is none)")
	fl.StringVar(&f.region, "s3-region", "", "the store's region (default: --region)")
}

// objects is the store; nothing: there is none.
type objects struct {
	files   secrets.Objects
	buckets func(bucket string) *s3.Client // nil also without credentials
}

// open checks what was given.
func (f objectsFlags) open(region string) (o objects, err error) {
	if f.endpoint == "" {
		return o, nil
	}
	u, err := url.Parse(f.endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return o, fmt.Errorf("--s3-endpoint must be like https://HOST:PORT, not %q", f.endpoint)
	}
	id, secret := os.Getenv("NEARGATE_S3_ACCESS_KEY_ID"), os.Getenv("NEARGATE_S3_SECRET_ACCESS_KEY")
	if (id == "") != (secret == "") {
		return o, errors.New("set both NEARGATE_S3_ACCESS_KEY_ID and NEARGATE_S3_SECRET_ACCESS_KEY, or none")
	}
	o.files = &secrets.S3{Endpoint: u, Region: cmp.Or(f.region, region), AccessKeyID: id, SecretAccessKey: secret, Clock: clock.Real{}}
	if id == "" {
		return o, nil
	}
	credentials, transport := s3.FixedCredentials(id, secret, ""), s3.NewTransport(nil)
	o.buckets = func(bucket string) *s3.Client {
		return s3.New(s3.Config{Endpoint: u, Region: cmp.Or(f.region, region), Bucket: bucket, Credentials: credentials, Transport: transport})
	}
	return o, nil
}
