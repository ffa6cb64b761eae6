package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func runCommand() *cobra.Command {
	var d client.Deployment
	var env []string
	var detach bool
	cmd := &cobra.Command{
		Use: "run IMAGE [COMMAND...]", Short: "Run a task once and print its output; ends with its exit code", Args: cobra.MinimumNArgs(1),
		Example: "  neargate run 127.0.0.1:4566/tools:v1 migrate --all",
	}
	deploymentFlags(cmd, &d, &env)
	cmd.Flags().StringVar(&d.Name, "name", "run", "family of the task definition")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "only print the task's id")
	cmd.Flags().SetInterspersed(false)
	return clientVerb(cmd, "default", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		var err error
		if d.Environment, err = environment(env); err != nil {
			return err
		}
		d.Image, d.Command, d.Cluster = args[0], args[1:], o.cluster
		t, err := c.Run(cmd.Context(), d)
		if err != nil {
			return err
		}
		if detach {
			return o.print(cmd.OutOrStdout(), t, func(w io.Writer) { fmt.Fprintln(w, t.ID) })
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "task "+t.ID)
		end, err := c.WaitStopped(cmd.Context(), t)
		if err != nil {
			return err
		}
		if err := printLogs(cmd, c, t, client.LogOptions{}, o.output); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), err)
		}
		if end.ExitCode != 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), end.Reason)
			return exitCode(end.ExitCode)
		}
		return nil
	})
}
