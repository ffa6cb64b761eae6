package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "explain TASK", Short: "Say why a task is placed where it is, or nowhere, host by host", Args: cobra.ExactArgs(1)}
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		t, err := c.FindTask(cmd.Context(), o.cluster, args[0])
		if err != nil {
			return err
		}
		e, err := c.Explain(cmd.Context(), t)
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), e, func(w io.Writer) {
			fmt.Fprintf(w, "task %s: %s\n%s\n", e.Task, e.Status, e.Summary)
			for _, h := range e.Hosts {
				for _, r := range h.Reasons {
					fmt.Fprintf(w, "  %s\t%s\n", h.Node, r)
				}
				if len(h.Reasons) == 0 {
					fmt.Fprintf(w, "  %s\tfits\n", h.Node)
				}
			}
		})
	})
}
