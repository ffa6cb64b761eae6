package s3

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Credentials are an access key: a fixed one, or one that a file holds in the form of the AWS CLI's. The file is read again when the store refuses
// a request, so that a key can be changed while the program runs.
type Credentials struct {
	file string

	mu  sync.Mutex
	key aws.Credentials // none: to be read
}

// FixedCredentials never change.
func FixedCredentials(id, secret, session string) *Credentials {
	return &Credentials{key: aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: session}}
}

// FileCredentials reads the file's profile "default".
func FileCredentials(file string) (*Credentials, error) {
	c := &Credentials{file: file}
	_, err := c.get()
	return c, err
}

func (c *Credentials) get() (aws.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key.AccessKeyID != "" {
		return c.key, nil
	}
	text, err := os.ReadFile(c.file)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("credentials of the object store: %w", err)
	}
	key, err := parseCredentials(text)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("credentials of the object store: %s: %w", c.file, err)
	}
	c.key = key
	return key, nil
}

// stale has the file read again for the next request.
func (c *Credentials) stale() {
	if c.file == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = aws.Credentials{}
}

// parseCredentials reads NAME = VALUE lines below [default]. Its errors show nothing of the file.
func parseCredentials(text []byte) (aws.Credentials, error) {
	var key aws.Credentials
	profile := "default"
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if name, ok := strings.CutPrefix(line, "["); ok {
			profile = strings.TrimSpace(strings.TrimSuffix(name, "]"))
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if profile != "default" || strings.HasPrefix(line, "#") || !ok {
			continue
		}
		switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
		case "aws_access_key_id":
			key.AccessKeyID = value
		case "aws_secret_access_key":
			key.SecretAccessKey = value
		case "aws_session_token":
			key.SessionToken = value
		}
	}
	if key.AccessKeyID == "" || key.SecretAccessKey == "" {
		return key, errors.New("aws_access_key_id and aws_secret_access_key are expected below [default]")
	}
	return key, nil
}
