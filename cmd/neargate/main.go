// Command neargate is the whole platform in one binary: everything in one process (dev), servers, agents and the client.
// This package reads flags, puts the parts together and stops them in order; it decides nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
)

func main() {
	native.Hook() // does not return where this process is a shim, an unpacker or a container's init
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "neargate: "+err.Error())
		os.Exit(1)
	}
}

// exitCode ends the process with a task's exit code and no further word.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "neargate",
		Short: "A container platform on your own machines that speaks the AWS protocols",
		Long: `Neargate turns machines you own into a container platform that the AWS CLI, the AWS SDKs and docker can use unchanged:
ECS task definitions and services, an ECR-style registry, load balancers, private DNS.

Start it with "neargate dev", then in another terminal:

  eval "$(neargate env)"      # point the AWS CLI and the SDKs at it
  aws ecs list-clusters
  neargate ps`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddGroup(&cobra.Group{ID: "platform", Title: "Run the platform:"}, &cobra.Group{ID: "client", Title: "Use it:"})
	for _, c := range []*cobra.Command{devCommand(), serverCommand(), agentCommand(), operatorCommand()} {
		c.GroupID = "platform"
		cmd.AddCommand(c)
	}
	for _, c := range []*cobra.Command{deployCommand(), envCommand(), eventsCommand(), execCommand(), explainCommand(), logsCommand(), psCommand(), runCommand(), stopCommand()} {
		c.GroupID = "client"
		cmd.AddCommand(c)
	}
	for _, c := range cmd.Commands() {
		refuseUnknown(c)
	}
	return cmd
}

// refuseUnknown has commands that only hold others refuse what is none of them, whatever flags come with it. Of itself cobra shows their help, or
// complains about a flag.
func refuseUnknown(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args, cmd.FParseErrWhitelist.UnknownFlags = cobra.NoArgs, true
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		refuseUnknown(c)
	}
}

// version is the module's, or the commit a development build was made from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return "devel " + s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}
