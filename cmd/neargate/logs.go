package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func logsCommand() *cobra.Command {
	var lo client.LogOptions
	var since time.Duration
	cmd := &cobra.Command{
		Use: "logs TASK", Short: "Print what a task wrote", Args: cobra.ExactArgs(1),
		Example: "  neargate logs -f 4b1c\n  neargate logs --tail 20 --container web 4b1c",
	}
	cmd.Flags().BoolVarP(&lo.Follow, "follow", "f", false, "go on until the task ends")
	cmd.Flags().IntVar(&lo.Tail, "tail", 0, "only the last lines of each container")
	cmd.Flags().StringVar(&lo.Container, "container", "", "only this container")
	cmd.Flags().DurationVar(&since, "since", 0, "only lines younger than this, for example 10m")
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		t, err := c.FindTask(cmd.Context(), o.cluster, args[0])
		if err != nil {
			return err
		}
		if since > 0 {
			lo.Since = time.Now().Add(-since)
		}
		return printLogs(cmd, c, t, lo, o.output)
	})
}

func printLogs(cmd *cobra.Command, c *client.Client, t client.Task, lo client.LogOptions, output string) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	err := c.Logs(cmd.Context(), t, lo, func(l client.LogLine) error {
		if output == "json" {
			return enc.Encode(l)
		}
		w := cmd.OutOrStdout()
		if l.Stream == "stderr" {
			w = cmd.ErrOrStderr()
		}
		_, err := fmt.Fprintln(w, l.Message)
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C ends a follow
	}
	return err
}
