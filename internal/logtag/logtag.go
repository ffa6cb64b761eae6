// Package logtag renders what log drivers call a container: the option tag is a template, as Docker has it. The control plane checks
// it when a task definition is registered, the agent renders it when a container starts.
package logtag

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/template/parse"
)

// Container is what a tag can speak of. Templates name its parts as field has them.
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

// field is what .NAME stands for.
func (c Container) field(name string) (any, bool) {
	switch name {
	case "ID":
		return short(c.ContainerID), true
	case "FullID", "ContainerID":
		return c.ContainerID, true
	case "Name":
		return strings.TrimPrefix(c.ContainerName, "/"), true
	case "ContainerName":
		return c.ContainerName, true
	case "ImageID":
		return short(strings.TrimPrefix(c.ContainerImageID, "sha256:")), true
	case "ImageFullID", "ContainerImageID":
		return c.ContainerImageID, true
	case "ImageName", "ContainerImageName":
		return c.ContainerImageName, true
	case "Command":
		return strings.TrimSpace(c.ContainerEntrypoint + " " + strings.Join(c.ContainerArgs, " ")), true
	case "ContainerEntrypoint":
		return c.ContainerEntrypoint, true
	case "ContainerArgs":
		return c.ContainerArgs, true
	case "DaemonName":
		return c.DaemonName, true
	case "Hostname":
		return c.Host, true
	}
	return nil, false
}

// short is how much of an id is shown.
func short(id string) string { return id[:min(shortID, len(id))] }

// functions are those that Docker's templates have, and index. The arguments are strings, numbers and lists of strings.
var functions = map[string]func(args []any) (any, bool){
	"json": func(args []any) (any, bool) {
		b, err := json.Marshal(args[0])
		return string(b), err == nil && len(args) == 1
	},
	"split": with(func(s, sep string) any { return strings.Split(s, sep) }),
	"join":  with(func(l []string, sep string) any { return strings.Join(l, sep) }),
	"lower": alone(strings.ToLower), "upper": alone(strings.ToUpper),
	"title": alone(func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] }),
	"pad": func(args []any) (any, bool) {
		if len(args) != 3 {
			return nil, false
		}
		s, ok := args[0].(string)
		before, ok1 := args[1].(int)
		after, ok2 := args[2].(int)
		if s != "" {
			s = strings.Repeat(" ", min(max(before, 0), 64)) + s + strings.Repeat(" ", min(max(after, 0), 64))
		}
		return s, ok && ok1 && ok2
	},
	"truncate": with(func(s string, n int) any { return s[:min(max(n, 0), len(s))] }),
	"index": with(func(l []string, n int) any {
		if n < 0 || n >= len(l) {
			return ""
		}
		return l[n]
	}),
}

func alone(f func(string) string) func([]any) (any, bool) {
	return func(args []any) (any, bool) {
		s, ok := args[0].(string)
		return f(s), ok && len(args) == 1
	}
}

func with[A, B any](f func(A, B) any) func([]any) (any, bool) {
	return func(args []any) (any, bool) {
		if len(args) != 2 {
			return nil, false
		}
		a, ok1 := args[0].(A)
		b, ok2 := args[1].(B)
		if !ok1 || !ok2 {
			return nil, false
		}
		return f(a, b), true
	}
}

// Render is the tag of a container; without a template it is the short id. Of templates it knows fields, functions and pipelines. (The
// standard library's package finds methods by name, for which the linker would have to keep all there are: TestDeadCode.)
func Render(text string, c Container) (string, error) {
	if text == "" {
		return short(c.ContainerID), nil
	}
	known := map[string]any{}
	for name := range functions {
		known[name] = true
	}
	trees, err := parse.Parse("tag", text, "{{", "}}", known)
	if err != nil {
		return "", fmt.Errorf("log tag %q: %w", text, err)
	}
	tree := trees["tag"]
	if tree == nil {
		return "", fmt.Errorf("log tag %q is empty", text)
	}
	var b strings.Builder
	for _, n := range tree.Root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			b.Write(n.Text)
		case *parse.ActionNode:
			v, err := c.value(n.Pipe)
			if err != nil {
				return "", fmt.Errorf("log tag %q: %w", text, err)
			}
			fmt.Fprint(&b, v)
		default:
			return "", fmt.Errorf("log tag %q: %s is neither a field nor a function", text, n)
		}
	}
	return b.String(), nil
}

// value is what a pipeline, or a part of one, stands for.
func (c Container) value(n parse.Node) (any, error) {
	switch n := n.(type) {
	case *parse.PipeNode:
		var last []any
		if len(n.Decl) > 0 {
			break
		}
		for _, cmd := range n.Cmds {
			v, err := c.command(cmd, last)
			if err != nil {
				return nil, err
			}
			last = []any{v}
		}
		return last[0], nil
	case *parse.FieldNode:
		if len(n.Ident) == 1 {
			if v, ok := c.field(n.Ident[0]); ok {
				return v, nil
			}
		}
	case *parse.StringNode:
		return n.Text, nil
	case *parse.NumberNode:
		if n.IsInt {
			return int(n.Int64), nil
		}
	}
	return nil, fmt.Errorf("%s is not known", n)
}

// command calls a function with its arguments and, in a pipeline, what came before.
func (c Container) command(cmd *parse.CommandNode, last []any) (any, error) {
	name, ok := cmd.Args[0].(*parse.IdentifierNode)
	if !ok {
		if len(cmd.Args) > 1 || len(last) > 0 {
			return nil, fmt.Errorf("%s is not a function", cmd.Args[0])
		}
		return c.value(cmd.Args[0])
	}
	var args []any
	for _, a := range cmd.Args[1:] {
		v, err := c.value(a)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	if args = append(args, last...); len(args) > 0 {
		if v, ok := functions[name.Ident](args); ok {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%s: its arguments are others", cmd)
}

// Check says what is wrong with a template.
func Check(text string) error {
	_, err := Render(text, Container{ContainerID: strings.Repeat("0", 64), ContainerName: "name", ContainerEntrypoint: "sh", ContainerArgs: []string{"-c"},
		ContainerImageID: "sha256:" + strings.Repeat("0", 64), ContainerImageName: "image:1", DaemonName: "neargate", Host: "host"})
	return err
}
