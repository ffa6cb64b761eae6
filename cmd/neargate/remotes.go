package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/registry"
)

// remoteRegion is an entry of the file of --remote-regions.
type remoteRegion struct {
	Endpoint        string `json:"endpoint"` // URL of the other cluster's public port
	Registry        string `json:"registry"` // URL of its registry, where that is another
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	CA              string `json:"ca"` // file with certificates (PEM) to trust instead of the system's
	// Accounts are keys for other accounts' registries there, and whose images may go to them.
	Accounts map[string]struct {
		AccessKeyID     string   `json:"accessKeyId"`
		SecretAccessKey string   `json:"secretAccessKey"`
		From            []string `json:"from"` // accounts of this cluster
	} `json:"accounts"`
}

func remoteFlag(fl *pflag.FlagSet, file *string) {
	fl.StringVar(file, "remote-regions", "", `file that names other clusters, by the region that stands for each in ECR's replication rules: `+
		`{"eu-far-1": {"endpoint": "https://…", "accessKeyId": "…", "secretAccessKey": "…", "ca": "FILE", "accounts": {"111111111111": {"accessKeyId": "…", "secretAccessKey": "…", "from": ["000000000000"]}}}}`)
}

var (
	regionRE  = regexp.MustCompile(`^[0-9a-z-]{2,25}$`)
	accountRE = regexp.MustCompile(`^[0-9]{12}$`)
)

// readRemotes reads that file; its credentials are the reason why it is one. local is this cluster's default region.
func readRemotes(file, local string) (map[string]registry.Remote, error) {
	if file == "" {
		return nil, nil
	}
	fi, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("--remote-regions: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("--remote-regions: %s has secrets and others can read it: chmod 600 %s", file, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--remote-regions: %w", err)
	}
	var regions map[string]remoteRegion
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&regions); err != nil {
		return nil, fmt.Errorf("--remote-regions: %s: %w", file, err)
	}
	out := map[string]registry.Remote{}
	for region, r := range regions {
		switch {
		case !regionRE.MatchString(region):
			return nil, fmt.Errorf("--remote-regions: %q is no region's name", region)
		case region == local:
			return nil, fmt.Errorf("--remote-regions: %s is this cluster's own region", region)
		case r.AccessKeyID == "" || r.SecretAccessKey == "":
			return nil, fmt.Errorf("--remote-regions: %s needs accessKeyId and secretAccessKey", region)
		}
		for _, u := range []string{r.Endpoint, r.Registry} {
			if p, err := url.Parse(u); (u != "" || u == r.Endpoint) && (err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "") {
				return nil, fmt.Errorf("--remote-regions: %s: %q is not a URL like https://host:port", region, u)
			}
		}
		accounts := map[string]registry.RemoteAccount{}
		for account, a := range r.Accounts {
			if a.AccessKeyID == "" || a.SecretAccessKey == "" || len(a.From) == 0 {
				return nil, fmt.Errorf("--remote-regions: account %s of %s needs accessKeyId, secretAccessKey and from", account, region)
			}
			for _, number := range append([]string{account}, a.From...) {
				if !accountRE.MatchString(number) {
					return nil, fmt.Errorf("--remote-regions: %s: %q is no account's number of 12 digits", region, number)
				}
			}
			accounts[account] = registry.RemoteAccount(a)
		}
		client, err := remoteClient(r.CA)
		if err != nil {
			return nil, fmt.Errorf("--remote-regions: %s: %w", region, err)
		}
		out[region] = registry.Remote{Endpoint: r.Endpoint, Registry: r.Registry, AccessKeyID: r.AccessKeyID, SecretAccessKey: r.SecretAccessKey, Client: client, Accounts: accounts}
	}
	return out, nil
}

// remoteClient has no limit for a whole request: layers take as long as they take.
func remoteClient(ca string) (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: time.Minute, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", ca)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: t}, nil
}
