package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func webhooksCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "webhooks", Short: "Have events delivered to URLs", Long: `Have events delivered to URLs, by POST, in the order of changes, each at least once.
A request that fails is repeated for 24 hours. X-Neargate-Event-Id tells repetitions; X-Neargate-Signature is "sha256=" and the
HMAC of X-Neargate-Timestamp, a dot and the body, by the webhook's secret.`}
	cmd.AddCommand(listWebhooksCommand(), createWebhookCommand(), deleteWebhookCommand())
	return cmd
}

func listWebhooksCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Show webhooks and how their delivery goes", Args: cobra.NoArgs}
	return clientVerb(cmd, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		list, err := c.EventWebhooks(cmd.Context())
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tDELIVERED\tDROPPED\tLAST DELIVERED\tLAST ERROR\tURL")
			for _, h := range list {
				last := "-"
				if !h.LastDeliveredAt.IsZero() {
					last = h.LastDeliveredAt.Local().Format(time.RFC3339)
				}
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", h.ID, h.Delivered, h.Dropped, last, cmp.Or(h.LastError, "-"), h.URL)
			}
		})
	})
}

func createWebhookCommand() *cobra.Command {
	var in client.NewEventWebhook
	var secretFile string
	cmd := &cobra.Command{
		Use: "create URL", Short: "Deliver events to a URL from now on, and print the secret that signs them", Args: cobra.ExactArgs(1),
		Example: `  neargate events webhooks create https://example.com/hook --pattern '{"detail": {"lastStatus": ["STOPPED"]}}'`,
	}
	cmd.Flags().StringVar(&in.Pattern, "pattern", "", "only events that this event pattern of EventBridge matches (JSON)")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret; default: one is made and printed, once")
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		in.URL = args[0]
		if secretFile != "" {
			text, err := os.ReadFile(secretFile)
			if err != nil {
				return err
			}
			in.Secret = strings.TrimRight(string(text), "\r\n")
		}
		h, err := c.CreateEventWebhook(cmd.Context(), in)
		if err != nil {
			return err
		}
		if secretFile != "" {
			h.Secret = "" // whoever gave it has it
		}
		return o.print(cmd.OutOrStdout(), h, func(w io.Writer) {
			fmt.Fprintf(w, "webhook\t%s\n", h.ID)
			if h.Secret != "" {
				fmt.Fprintf(w, "secret\t%s\n", h.Secret)
			}
		})
	})
}

func deleteWebhookCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "delete ID", Short: "Deliver no more events to a webhook", Args: cobra.ExactArgs(1)}
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, _ *connection) error {
		return c.DeleteEventWebhook(cmd.Context(), args[0])
	})
}
