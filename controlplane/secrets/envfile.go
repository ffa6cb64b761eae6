package secrets

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
)

// maxEnvFile is how long a file of variables may be.
const maxEnvFile = 1 << 20

// Objects reads objects of an S3-compatible store.
type Objects interface {
	// Get reads an object of at most so many bytes. Its error is for who wrote the task definition.
	Get(ctx context.Context, bucket, key string, most int64) ([]byte, error)
}

// environmentFile reads an object that an ARN names, if the execution role may.
func (w *work) environmentFile(ctx context.Context, name string) (map[string]string, error) {
	failed := func(err error) error { return initialization("failed to download env files: %s: %s", name, words(err)) }
	bucket, key, err := controlplane.ParseObjectARN(name)
	switch {
	case err != nil:
		return nil, failed(err)
	case w.Objects == nil:
		return nil, failed(errors.New("this platform has no S3 endpoint; start its servers with --s3-endpoint"))
	}
	call := &api.Call{Identity: w.who, Region: w.task.Region, Service: "s3", Operation: "GetObject", Secure: true}
	if err := w.Authorizer.Authorize(ctx, call, api.Access{Action: "s3:GetObject", Resources: []string{name}}); err != nil {
		return nil, failed(errors.New("AccessDenied: " + err.Error()))
	}
	text, err := w.Objects.Get(ctx, bucket, key, maxEnvFile)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, failed(err)
	}
	if !utf8.Valid(text) || strings.ContainsRune(string(text), 0) {
		return nil, failed(errors.New("it is not text in UTF-8"))
	}
	vars := parseEnvFile(string(text))
	for name, value := range vars {
		if err := w.count(name, value); err != nil {
			return nil, err
		}
	}
	return vars, nil
}

// parseEnvFile reads lines as the agent of ECS does: NAME=VALUE, where spaces and quotation marks are part of the value and nothing is
// expanded; a line that begins with #, has no =, or nothing on one of its sides sets nothing. The last line for a name holds.
func parseEnvFile(text string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		name, value, ok := strings.Cut(line, "=")
		if strings.HasPrefix(line, "#") || !ok || name == "" || value == "" {
			continue
		}
		vars[name] = value
	}
	return vars
}
