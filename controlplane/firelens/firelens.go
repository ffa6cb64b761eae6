// Package firelens writes the configuration that the log router of a task is started with, in the words of Fluent Bit or Fluentd, as the
// agent of ECS does: inputs, filters, what the task definition includes, then an output for each container that asks for one. It is pure:
// the same router has the same text, whoever renders it. What options mean is the router's to know: they are written as they are.
package firelens

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Types of routers.
const (
	FluentBit = "fluentbit"
	Fluentd   = "fluentd"
)

// Socket is where the router listens for what its task's containers write. The folder is shared with whoever sends it.
const Socket = "/var/run/fluent.sock"

// Port is where programs reach it, at Host.
const (
	Port = "24224"
	Host = "127.0.0.1"
)

// Options of firelensConfiguration.
const (
	OptionMetadata  = "enable-ecs-log-metadata"
	OptionFileType  = "config-file-type"
	OptionFileValue = "config-file-value"
)

// Options of a log configuration that say something of the way to the router, not of its output.
const (
	OptionBufferLimit = "log-driver-buffer-limit"
	optionInclude     = "include-pattern"
	optionExclude     = "exclude-pattern"
)

// Router is what the configuration depends on.
type Router struct {
	Type        string
	NetworkMode string            // with bridge and awsvpc it listens on the network too
	Metadata    map[string]string // fields that every record gets
	Include     string            // a file in its container; empty: none
	Sources     []Source
}

// Source is a container whose output it routes.
type Source struct {
	Container string
	Options   map[string]string // of its log configuration
}

// ConfigPath is where the images of routers look for their configuration.
func ConfigPath(kind string) string {
	if kind == Fluentd {
		return "/fluentd/etc/fluent.conf"
	}
	return "/fluent-bit/etc/fluent-bit.conf"
}

// Tag is that of a container's records. Outputs match what comes before the task.
func Tag(container, task string) string { return container + "-firelens-" + task }

// OutputKey is the option that names the plugin.
func OutputKey(kind string) string {
	if kind == Fluentd {
		return "@type"
	}
	return "Name"
}

// SecretVariable is the variable of the router's environment that has a secret option of the index-th container of the definition.
func SecretVariable(option string, index int) string { return fmt.Sprintf("%s_%d", option, index) }

// Placeholder is how a value refers to a variable of the environment.
func Placeholder(kind, variable string) string {
	if kind == Fluentd {
		return `"#{ENV['` + variable + `']}"`
	}
	return "${" + variable + "}"
}

// Check says why a container's options make no output for a router of this type.
func (s Source) Check(kind string) error {
	if key := OutputKey(kind); len(s.plugin(kind)) > 0 && s.Options[key] == "" {
		return fmt.Errorf("unable to apply log options of container %s to firelens config: missing output key %s which is required for firelens configuration of type %s",
			s.Container, key, kind)
	}
	return nil
}

// plugin are the options of the output itself.
func (s Source) plugin(kind string) map[string]string {
	own := maps.Clone(s.Options)
	for _, o := range []string{OutputKey(kind), OptionBufferLimit, optionInclude, optionExclude} {
		delete(own, o)
	}
	return own
}

// Config is the configuration's text.
func (r Router) Config() string {
	var w writer = fluentBit{&strings.Builder{}}
	if r.Type == Fluentd {
		w = fluentd{&strings.Builder{}}
	}
	listen := map[string]string{"bridge": "0.0.0.0", "awsvpc": "127.0.0.1"}[r.NetworkMode]
	w.inputs(listen)
	for _, s := range r.Sources {
		if p := s.Options[optionInclude]; p != "" {
			w.grep(s.Container, true, p)
		}
	}
	for _, s := range r.Sources {
		if p := s.Options[optionExclude]; p != "" {
			w.grep(s.Container, false, p)
		}
	}
	if len(r.Metadata) > 0 {
		w.fields(r.Metadata)
	}
	if r.Include != "" {
		w.include(r.Include)
	}
	if listen != "" {
		w.dropHealthChecks()
	}
	for _, s := range r.Sources {
		if plugin := s.Options[OutputKey(r.Type)]; plugin != "" {
			w.output(s.Container, plugin, s.plugin(r.Type))
		}
	}
	return w.String()
}

// writer writes sections in one of the two languages.
type writer interface {
	inputs(listen string)
	grep(container string, keep bool, pattern string)
	fields(fields map[string]string)
	include(path string)
	dropHealthChecks()
	output(container, plugin string, options map[string]string)
	String() string
}

// fluentBit has sections of a name and of lines.
type fluentBit struct{ *strings.Builder }

func (f fluentBit) section(name string, lines ...string) {
	fmt.Fprintf(f, "\n[%s]\n", name)
	for _, l := range lines {
		fmt.Fprintf(f, "    %s\n", l)
	}
}

func (f fluentBit) inputs(listen string) {
	f.section("INPUT", "Name forward", "unix_path "+Socket)
	if listen != "" {
		f.section("INPUT", "Name forward", "Listen "+listen, "Port "+Port)
		f.section("INPUT", "Name tcp", "Tag firelens-healthcheck", "Listen 127.0.0.1", "Port 8877")
	}
}

func (f fluentBit) grep(container string, keep bool, pattern string) {
	rule := "Exclude"
	if keep {
		rule = "Regex"
	}
	f.section("FILTER", "Name grep", "Match "+container+"-firelens*", rule+" log "+pattern)
}

func (f fluentBit) fields(fields map[string]string) {
	f.section("FILTER", append([]string{"Name record_modifier", "Match *"}, lines("Record ", fields)...)...)
}

func (f fluentBit) include(path string) { fmt.Fprintf(f, "\n@INCLUDE %s\n", path) }

func (f fluentBit) dropHealthChecks() {
	f.section("OUTPUT", "Name null", "Match firelens-healthcheck")
}

func (f fluentBit) output(container, plugin string, options map[string]string) {
	f.section("OUTPUT", append([]string{"Name " + plugin, "Match " + container + "-firelens*"}, lines("", options)...)...)
}

// fluentd has tags that begin and end.
type fluentd struct{ *strings.Builder }

func (f fluentd) section(name, argument string, lines ...string) {
	fmt.Fprintf(f, "\n<%s>\n", strings.TrimSpace(name+" "+argument))
	for _, l := range lines {
		fmt.Fprintf(f, "    %s\n", l)
	}
	fmt.Fprintf(f, "</%s>\n", name)
}

func (f fluentd) inputs(listen string) {
	f.section("source", "", "@type unix", "path "+Socket)
	if listen != "" {
		f.section("source", "", "@type forward", "bind "+listen, "port "+Port)
	}
}

func (f fluentd) grep(container string, keep bool, pattern string) {
	rule := "exclude"
	if keep {
		rule = "regexp"
	}
	f.section("filter", container+"-firelens**", "@type grep", "<"+rule+">", "    key log", "    pattern "+pattern, "</"+rule+">")
}

func (f fluentd) fields(fields map[string]string) {
	all := append([]string{"@type record_transformer", "<record>"}, lines("    ", fields)...)
	f.section("filter", "**", append(all, "</record>")...)
}

func (f fluentd) include(path string) { fmt.Fprintf(f, "\n@include %s\n", path) }

func (f fluentd) dropHealthChecks() {} // it has no input for them

func (f fluentd) output(container, plugin string, options map[string]string) {
	f.section("match", container+"-firelens**", append([]string{"@type " + plugin}, lines("", options)...)...)
}

// lines are the pairs in the order of their names.
func lines(before string, pairs map[string]string) (list []string) {
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		list = append(list, before+k+" "+pairs[k])
	}
	return list
}
