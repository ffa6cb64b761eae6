package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func eventsCommand() *cobra.Command {
	var eo client.EventOptions
	var since time.Duration
	cmd := &cobra.Command{
		Use: "events", Short: "Print what happened to tasks, services and container instances", Args: cobra.NoArgs,
		Long: `Print what happened to tasks, deployments, services and container instances, the oldest first; it is kept for a week.
With --output json each line is an event as EventBridge would deliver it.`,
		Example: "  neargate events -f\n  neargate events --since 1h --detail-type 'ECS Service Action'",
	}
	cmd.Flags().BoolVarP(&eo.Follow, "follow", "f", false, "go on with what happens; without --since or --after only that")
	cmd.Flags().StringVar(&eo.DetailType, "detail-type", "", "only events of this type")
	cmd.Flags().StringVar(&eo.After, "after", "", "only events after the one with this cursor")
	cmd.Flags().DurationVar(&since, "since", 0, "only events younger than this, for example 10m")
	cmd.AddCommand(webhooksCommand())
	return clientVerb(cmd, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		eo.Cluster = o.cluster
		if since > 0 {
			eo.Since = time.Now().Add(-since)
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		err := c.Events(cmd.Context(), eo, func(e client.Event) error {
			if o.output == "json" {
				return enc.Encode(e)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), eventLine(e))
			return err
		})
		if errors.Is(err, context.Canceled) {
			return nil // Ctrl-C ends a follow
		}
		return err
	})
}

// eventLine is an event for people: when, about what, and what became of it.
func eventLine(e client.Event) string {
	var d struct {
		LastStatus, DesiredStatus, StoppedReason, Status, EventName, Reason string
		AgentConnected                                                      *bool
	}
	_ = json.Unmarshal(e.Detail, &d) // a detail of another kind has none of them
	what := ""
	if len(e.Resources) > 0 {
		what = e.Resources[0][strings.LastIndexByte(e.Resources[0], ':')+1:]
	}
	words := []string{e.Time.Local().Format(time.RFC3339), strings.TrimSuffix(strings.TrimPrefix(e.DetailType, "ECS "), " State Change"), what, d.LastStatus}
	if d.DesiredStatus != "" && d.DesiredStatus != d.LastStatus {
		words = append(words, "(wanted "+d.DesiredStatus+")")
	}
	words = append(words, d.StoppedReason, d.Status, d.EventName, d.Reason)
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
