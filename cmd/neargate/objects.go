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
)

// objectsFlags name the S3-compatible store that files of environment variables are read from.
type objectsFlags struct{ endpoint, region string }

func (f *objectsFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.endpoint, "s3-endpoint", "", "URL of the S3-compatible store that environmentFiles are read from, with the credentials $NEARGATE_S3_ACCESS_KEY_ID and $NEARGATE_S3_SECRET_ACCESS_KEY (default: there is none)")
	fl.StringVar(&f.region, "s3-region", "", "the store's region (default: --region)")
}

// open checks what was given. Without an endpoint it answers nil.
func (f objectsFlags) open(region string) (secrets.Objects, error) {
	if f.endpoint == "" {
		return nil, nil
	}
	u, err := url.Parse(f.endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("--s3-endpoint must be like https://HOST:PORT, not %q", f.endpoint)
	}
	id, secret := os.Getenv("NEARGATE_S3_ACCESS_KEY_ID"), os.Getenv("NEARGATE_S3_SECRET_ACCESS_KEY")
	if (id == "") != (secret == "") {
		return nil, errors.New("set both NEARGATE_S3_ACCESS_KEY_ID and NEARGATE_S3_SECRET_ACCESS_KEY, or none")
	}
	return &secrets.S3{Endpoint: u, Region: cmp.Or(f.region, region), AccessKeyID: id, SecretAccessKey: secret, Clock: clock.Real{}}, nil
}
