package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func stopCommand() *cobra.Command {
	var reason, service string
	cmd := &cobra.Command{
		Use: "stop [TASK...]", Short: "Stop tasks, or a service with all of its tasks",
		Example: "  neargate stop 4b1c\n  neargate stop --service users --cluster microservices",
	}
	cmd.Flags().StringVar(&reason, "reason", "Stopped by neargate stop", "kept with the task")
	cmd.Flags().StringVar(&service, "service", "", "delete this service and stop its tasks")
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		if service == "" && len(args) == 0 {
			return errors.New("name a task, or a service with --service")
		}
		if service != "" {
			if o.cluster == "" {
				o.cluster = "default"
			}
			if err := c.StopService(cmd.Context(), o.cluster, service); err != nil {
				return err
			}
		}
		for _, a := range args {
			t, err := c.FindTask(cmd.Context(), o.cluster, a)
			if err != nil {
				return err
			}
			if err := c.Stop(cmd.Context(), t, reason); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t.ID)
		}
		return nil
	})
}
