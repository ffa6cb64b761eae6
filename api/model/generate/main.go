// Command generate makes the model tables.
//
// Two sources: the service models of github.com/aws/aws-sdk-go (api-2.json: constraints, wire names, errors; no longer
// updated) and the source of the aws-sdk-go-v2 modules in go.mod, whose schemas or serializers, types and enums
// say what is newer. Where they disagree about which operations, members and enum values exist, the v2 module is right:
// its types are what the codec fills. Neither is imported; the first is not even in go.mod.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/seed-2f228079/neargate/api/model"
)

const (
	v1Module = "github.com/aws/aws-sdk-go@v1.55.8"
	v2Prefix = "github.com/aws/aws-sdk-go-v2/service/"
)

// services maps the SDK package's name to its folder in the v1 models.
var services = map[string]string{
	"applicationautoscaling": "application-autoscaling",
	"autoscaling":            "autoscaling",
	"cloudwatchlogs":         "logs",
	"ec2":                    "ec2",
	"ecr":                    "ecr",
	"ecrpublic":              "ecr-public",
	"ecs":                    "ecs",
	"elasticloadbalancingv2": "elasticloadbalancingv2",
	"iam":                    "iam",
	"secretsmanager":         "secretsmanager",
	"servicediscovery":       "servicediscovery",
	"ssm":                    "ssm",
	"sts":                    "sts",
}

// unlisted are the values of enums that AWS's documentation has and its services take, and that neither source lists: by service and shape.
var unlisted = map[string]map[string][]string{
	"ecs": {"SettingName": {"dualStackIPv6"}}, // see PutAccountSetting
}

func main() {
	log.SetFlags(0)
	out := flag.String("out", "tables", "folder for the tables")
	flag.Parse()
	if err := run(*out); err != nil {
		log.Fatal(err)
	}
}

func run(out string) error {
	v1, err := moduleDir("mod", "download", "-json", v1Module)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		dir, err := moduleDir("list", "-m", "-json", v2Prefix+name)
		if err != nil {
			return err
		}
		t, err := readV1(v1, services[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t.meta.Service = name
		t.meta.Source = v1Module + " " + filepath.Base(dir)
		src, err := readSource(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := t.update(src); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for shape, values := range unlisted[name] {
			t.shapes[shape].Enum = append(t.shapes[shape].Enum, values...)
		}
		if err := t.write(filepath.Join(out, name+".gz")); err != nil {
			return err
		}
	}
	return nil
}

// moduleDir is where the module that a go command reports lies.
func moduleDir(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %v: %w", args, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	return m.Dir, nil
}

// table is a service's model while it is made.
type table struct {
	meta   model.Metadata
	ops    map[string]*model.Operation
	shapes map[string]*model.Shape
}

// prune drops the shapes no operation and no error reaches.
func (t *table) prune() {
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		s := t.shapes[name]
		if s == nil || seen[name] {
			return
		}
		seen[name] = true
		for _, r := range s.Members {
			visit(r.Shape)
		}
		for _, r := range []*model.Ref{s.Member, s.Key, s.Value} {
			if r != nil {
				visit(r.Shape)
			}
		}
	}
	for _, o := range t.ops {
		visit(o.Input)
		visit(o.Output)
		for _, e := range o.Errors {
			visit(e)
		}
	}
	for n, s := range t.shapes {
		if s.Exception {
			visit(n)
		}
	}
	maps.DeleteFunc(t.shapes, func(n string, _ *model.Shape) bool { return !seen[n] })
}

// write packs the table. The same input gives the same bytes.
func (t *table) write(file string) error {
	t.prune()
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends each value with a newline
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t.meta); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(t.ops)) {
		b.WriteString("O " + n + " ")
		if err := enc.Encode(t.ops[n]); err != nil {
			return err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(t.shapes)) {
		b.WriteString("S " + n + " ")
		if err := enc.Encode(t.shapes[n]); err != nil {
			return err
		}
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(b.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	log.Printf("%-24s %4d operations %5d shapes %8d bytes", t.meta.Service, len(t.ops), len(t.shapes), packed.Len())
	return os.WriteFile(file, packed.Bytes(), 0o644)
}
