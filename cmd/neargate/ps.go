package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "ps", Short: "List tasks", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also stopped tasks")
	return clientVerb(cmd, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		clusters := []string{o.cluster}
		if o.cluster == "" {
			var err error
			if clusters, err = c.Clusters(cmd.Context()); err != nil {
				return err
			}
		}
		tasks := []client.Task{}
		for _, cl := range clusters {
			ts, err := c.Tasks(cmd.Context(), cl, all)
			if err != nil {
				return err
			}
			tasks = append(tasks, ts...)
		}
		return o.print(cmd.OutOrStdout(), tasks, func(w io.Writer) {
			fmt.Fprintln(w, "TASK\tCLUSTER\tGROUP\tDEFINITION\tSTATUS\tCREATED\tPORTS\tREASON")
			for _, t := range tasks {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s ago\t%s\t%s\n", t.ID, t.Cluster, t.Group, t.Definition, t.Status,
					time.Since(t.Created).Round(time.Second), t.Ports, t.Reason)
			}
		})
	})
}
