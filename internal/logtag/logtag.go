// Package logtag renders what log drivers call a container: the option tag is a template, as Docker has it. The control plane checks
// it when a task definition is registered, the agent renders it when a container starts.
package logtag

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
)

// Container is what a tag can speak of. Templates name the fields and methods.
type Container struct {
	ContainerID, ContainerName           string
	ContainerEntrypoint                  string
	ContainerArgs                        []string
	ContainerImageID, ContainerImageName string
	DaemonName                           string
	Host                                 string
}

// shortID is how much of an id is shown.
const shortID = 12

// ID is the short id.
func (c Container) ID() string { return c.ContainerID[:min(shortID, len(c.ContainerID))] }

// FullID is the whole id.
func (c Container) FullID() string { return c.ContainerID }

// Name is the container's.
func (c Container) Name() string { return strings.TrimPrefix(c.ContainerName, "/") }

// ImageID is the short id of the image.
func (c Container) ImageID() string {
	id := strings.TrimPrefix(c.ContainerImageID, "sha256:")
	return id[:min(shortID, len(id))]
}

// ImageFullID is the whole id of the image.
func (c Container) ImageFullID() string { return c.ContainerImageID }

// ImageName is the image as it was asked for.
func (c Container) ImageName() string { return c.ContainerImageName }

// Command is what runs.
func (c Container) Command() string {
	return strings.TrimSpace(c.ContainerEntrypoint + " " + strings.Join(c.ContainerArgs, " "))
}

// Hostname is the host's.
func (c Container) Hostname() (string, error) { return c.Host, nil }

// The functions that Docker's templates have.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimSpace(b.String()), err
	},
	"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", min(max(before, 0), 64)) + s + strings.Repeat(" ", min(max(after, 0), 64))
	},
	"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
}

// Render is the tag of a container; without a template it is the short id.
func Render(text string, c Container) (string, error) {
	if text == "" {
		return c.ID(), nil
	}
	t, err := template.New("tag").Funcs(functions).Parse(text)
	if err != nil {
		return "", fmt.Errorf("log tag %q: %w", text, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, c); err != nil {
		return "", fmt.Errorf("log tag %q: %w", text, err)
	}
	return b.String(), nil
}

// Check says what is wrong with a template.
func Check(text string) error {
	_, err := Render(text, Container{ContainerID: strings.Repeat("0", 64), ContainerName: "name", ContainerEntrypoint: "sh", ContainerArgs: []string{"-c"},
		ContainerImageID: "sha256:" + strings.Repeat("0", 64), ContainerImageName: "image:1", DaemonName: "neargate", Host: "host"})
	return err
}
