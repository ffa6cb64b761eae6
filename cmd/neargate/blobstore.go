package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
	"github.com/seed-2f228079/neargate/storage/s3"
)

// blobStoreFlags name the S3-compatible store that has the registry's blobs. The zero value: they are on the servers' disks.
type blobStoreFlags struct {
	url, endpoint, region, credentials, ca string
	virtualHost                            bool
	cache                                  mebibytes
}

func (f *blobStoreFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.url, "blob-store", "", "s3://BUCKET/PREFIX in which the registry's layers and manifests are, the same for all servers of a cluster and for no other; disks are only their cache then (default: they are on the servers' disks)")
	fl.StringVar(&f.endpoint, "blob-store-endpoint", "", "URL of that S3-compatible store (default Amazon S3 of the region)")
	fl.StringVar(&f.region, "blob-store-region", "", "its region (default --region)")
	fl.StringVar(&f.credentials, "blob-store-credentials", "", "file with its access key, in the form of the AWS CLI's: aws_access_key_id and aws_secret_access_key below [default] (default $NEARGATE_BLOB_STORE_ACCESS_KEY_ID and $NEARGATE_BLOB_STORE_SECRET_ACCESS_KEY)")
	fl.StringVar(&f.ca, "blob-store-ca", "", "certificates (PEM) of the authority of that store (default the system's)")
	fl.BoolVar(&f.virtualHost, "blob-store-virtual-host", false, "put the bucket in front of the store's host name instead of into the path")
	f.cache = 10 << 30
	fl.Var(&f.cache, "blob-cache", "`MiB` of this server's disk that blobs take which are in --blob-store")
}

var (
	bucketName   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	bucketPrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
)

// place splits --blob-store.
func (f blobStoreFlags) place() (name, prefix string, err error) {
	rest, ok := strings.CutPrefix(f.url, "s3://")
	name, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if !ok || !bucketName.MatchString(name) || prefix != "" && !bucketPrefix.MatchString(prefix) || len(prefix) > 512 {
		return "", "", fmt.Errorf("--blob-store must be like s3://BUCKET/PREFIX, the prefix made of letters, digits and -_./, not %q", f.url)
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "." || part == ".." {
			return "", "", fmt.Errorf("--blob-store has %q in its prefix, which clients and stores take for something else", part)
		}
	}
	return name, prefix, nil
}

// check refuses flags that do not go together.
func (f blobStoreFlags) check() error {
	if f.url == "" {
		for flag, given := range map[string]bool{"--blob-store-endpoint": f.endpoint != "", "--blob-store-region": f.region != "",
			"--blob-store-credentials": f.credentials != "", "--blob-store-ca": f.ca != "", "--blob-store-virtual-host": f.virtualHost} {
			if given {
				return fmt.Errorf("%s goes with --blob-store", flag)
			}
		}
		return nil
	}
	if f.cache < 64<<20 {
		return errors.New("--blob-cache is at least 64 MiB")
	}
	_, _, err := f.place()
	return err
}

// open makes the way to the bucket, which it does not take yet: a server starts while its store is down. Without --blob-store it answers nil.
func (f blobStoreFlags) open(local *blob.Store, region, owner string, log *slog.Logger) (*bucket.Bucket, error) {
	if f.url == "" {
		return nil, nil
	}
	name, prefix, err := f.place()
	if err != nil {
		return nil, err
	}
	region = cmp.Or(f.region, region)
	endpoint, err := url.Parse(cmp.Or(f.endpoint, "https://s3."+region+".amazonaws.com"))
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" || endpoint.User != nil || endpoint.RawQuery != "" {
		return nil, fmt.Errorf("--blob-store-endpoint must be like https://HOST:PORT, not %q", f.endpoint)
	}
	credentials, err := f.readCredentials()
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--blob-store-ca: %w", err)
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--blob-store-ca: %s has no certificate", f.ca)
		}
	}
	store := s3.New(s3.Config{
		Endpoint: endpoint, Region: region, Bucket: name, VirtualHost: f.virtualHost, Credentials: credentials, Transport: s3.NewTransport(config),
	})
	return bucket.New(bucket.Config{Local: local, Objects: store, Prefix: prefix, Owner: owner, CacheBytes: int64(f.cache), Log: log})
}

func (f blobStoreFlags) readCredentials() (*s3.Credentials, error) {
	if f.credentials != "" {
		return s3.FileCredentials(f.credentials)
	}
	id, secret := os.Getenv("NEARGATE_BLOB_STORE_ACCESS_KEY_ID"), os.Getenv("NEARGATE_BLOB_STORE_SECRET_ACCESS_KEY")
	if id == "" || secret == "" {
		return nil, errors.New("--blob-store needs credentials: set NEARGATE_BLOB_STORE_ACCESS_KEY_ID and NEARGATE_BLOB_STORE_SECRET_ACCESS_KEY, or give --blob-store-credentials FILE")
	}
	return s3.FixedCredentials(id, secret, os.Getenv("NEARGATE_BLOB_STORE_SESSION_TOKEN")), nil
}

// blobStoreMetrics say how the store is.
func blobStoreMetrics(b *bucket.Bucket, r *registry.Registry) []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neargate_registry_blob_store_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("up", "Whether the last request to the store went well.", func() float64 {
			if b.Up() {
				return 1
			}
			return 0
		}),
		gauge("objects", "Blobs in the store, as this server last listed them while it led.", func() float64 { return float64(r.ObjectStore().Objects) }),
		gauge("bytes", "Bytes of these.", func() float64 { return float64(r.ObjectStore().Bytes) }),
		gauge("lost", "Blobs that are nowhere, as this server last found while it led.", func() float64 { return float64(len(r.ObjectStore().Lost)) }),
	}
}

func objectStoreCommand() *cobra.Command {
	return clientVerb(&cobra.Command{
		Use: "object-store", Short: "Say how what is in the object store stands to what the registry has", Args: cobra.NoArgs,
		Long: `Say how what is in the object store (--blob-store) stands to what the registry has. The leader compares the two when it begins to lead and then
hourly: what nothing refers to is deleted, what is missing is put there from the disks of servers. So a cluster whose layers were on disks moves by being
started with --blob-store; it has moved when nothing is waiting.`,
		Example: "  neargate operator object-store",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		s, err := c.ObjectStore(cmd.Context())
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), s, func(w io.Writer) {
			if s.Error != "" {
				fmt.Fprintln(w, "Not available:", s.Error)
			}
			if s.Compared.IsZero() {
				fmt.Fprintf(w, "Not compared yet. Moved so far: %d.\n", s.Moved)
				return
			}
			fmt.Fprintf(w, "Compared at %s: %d layers and manifests, %d bytes.\n", s.Compared.Format(time.RFC3339), s.Objects, s.Bytes)
			fmt.Fprintf(w, "Moved: %d. Waiting: %d. Lost: %d.\n", s.Moved, s.Waiting, len(s.Lost))
			for _, d := range s.Lost {
				fmt.Fprintln(w, d)
			}
		})
	})
}
