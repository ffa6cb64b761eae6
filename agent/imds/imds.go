// Package imds reads what EC2 tells an instance of itself (Instance Metadata Service, version 2).
package imds

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Endpoint is where instances find the service.
const Endpoint = "http://169.254.169.254"

// Environment is how SDKs are told that the service is elsewhere, or not to be asked.
const (
	endpointVariable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
	disabledVariable = "AWS_EC2_METADATA_DISABLED"
)

// timeout bounds the whole of Read: the service is on the host's own link.
const timeout = 5 * time.Second

// maxValue bounds an answer.
const maxValue = 4 << 10

// Instance is what is known of this host; its members are empty where the service does not tell.
type Instance struct {
	ID, Type, AMI, Zone string
}

// Attributes are the instance's as ECS has them.
func (i Instance) Attributes() map[string]string {
	out := map[string]string{}
	for name, value := range map[string]string{"ecs.instance-id": i.ID, "ecs.instance-type": i.Type, "ecs.ami-id": i.AMI} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// Find is where the service is to be asked, by the environment and by what the machine's firmware says (below sys, which is /sys): empty on a
// machine that is no instance, so that nobody waits for an answer there.
func Find(env func(string) string, sys string) string {
	if strings.EqualFold(env(disabledVariable), "true") {
		return ""
	}
	if at := env(endpointVariable); at != "" {
		return strings.TrimRight(at, "/")
	}
	vendor, _ := os.ReadFile(sys + "/class/dmi/id/sys_vendor") // Nitro
	uuid, _ := os.ReadFile(sys + "/hypervisor/uuid")           // Xen
	if strings.TrimSpace(string(vendor)) == "Amazon EC2" || strings.HasPrefix(string(uuid), "ec2") {
		return Endpoint
	}
	return ""
}

// Read asks the service at endpoint.
func Read(ctx context.Context, endpoint string) (Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var i Instance
	token, err := ask(ctx, http.MethodPut, endpoint+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		return i, err
	}
	for path, into := range map[string]*string{
		"instance-id": &i.ID, "instance-type": &i.Type, "ami-id": &i.AMI, "placement/availability-zone": &i.Zone,
	} {
		if *into, err = ask(ctx, http.MethodGet, endpoint+"/latest/meta-data/"+path, "X-aws-ec2-metadata-token", token); err != nil {
			return i, err
		}
	}
	return i, nil
}

// client goes to the service and nowhere else.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask is empty for what the service does not have.
func ask(ctx context.Context, method, url, header, value string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(header, value)
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for the instance's metadata: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxValue+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask for the instance's metadata: %w", err)
	case resp.StatusCode == http.StatusNotFound && method == http.MethodGet:
		return "", nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("ask for the instance's metadata: %s answered %s", url, resp.Status)
	case len(text) > maxValue:
		return "", fmt.Errorf("ask for the instance's metadata: %s answered more than %d bytes", url, maxValue)
	}
	return strings.TrimSpace(string(text)), nil
}
