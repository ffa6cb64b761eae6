package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func authorityCommand() *cobra.Command {
	cmd := clientVerb(&cobra.Command{
		Use: "authority", Short: "Show the certificate authority, and how far its exchange has come", Args: cobra.NoArgs,
		Long: `Show the cluster's certificate authority, and how far its exchange for a new one has come:

  steady      there is one authority
  spreading   servers get the new one
  issuing     hosts get certificates of the new one; both are trusted, and DIR/keys/ca.pem of the servers has both. Hand that file to clients of the
              public port, then run "neargate operator authority retire"
  switching   servers show certificates of the new one
  forgetting  the old one is trusted no longer; hosts forget it`,
		Example: "  neargate operator authority",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		a, err := c.Authority(cmd.Context())
		if err != nil {
			return err
		}
		return printAuthority(cmd, o, a)
	})
	var force bool
	retire := &cobra.Command{
		Use: "retire", Short: "Trust the old certificate authority no longer", Args: cobra.NoArgs,
		Long: `Trust the old certificate authority no longer. It is refused while hosts have no certificate of the new one; with --force they are not
waited for, and join again by a token, as the same hosts. Clients of the public port need the new ca.pem from then on.`,
		Example: "  neargate operator authority retire",
	}
	retire.Flags().BoolVar(&force, "force", false, "do not wait for hosts that have no certificate of the new authority")
	cmd.AddCommand(clientVerb(&cobra.Command{
		Use: "rotate", Short: "Begin to exchange the certificate authority for a new one", Args: cobra.NoArgs,
		Long: `Begin to exchange the certificate authority for a new one. It goes on by itself until hosts have certificates of the new one; then it waits for
"neargate operator authority retire".`,
		Example: "  neargate operator authority rotate",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		a, err := c.RotateAuthority(cmd.Context())
		if err != nil {
			return err
		}
		return printAuthority(cmd, o, a)
	}), clientVerb(retire, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		a, err := c.RetireAuthority(cmd.Context(), force)
		if err != nil {
			return err
		}
		return printAuthority(cmd, o, a)
	}))
	return cmd
}

func printAuthority(cmd *cobra.Command, o *connection, a *client.Authority) error {
	return o.print(cmd.OutOrStdout(), a, func(w io.Writer) {
		fmt.Fprintf(w, "Phase: %s\n", a.Phase)
		if a.Waits != "" {
			fmt.Fprintf(w, "Waits: %s\n", a.Waits)
		}
		for _, c := range a.Authorities {
			fmt.Fprintf(w, "Authority: %s, until %s\n", c.ID, c.Ends.Format(time.RFC3339))
		}
		for _, s := range a.Servers {
			if !s.Current {
				fmt.Fprintf(w, "Server behind: %s\n", s.ID)
			}
		}
		fmt.Fprintf(w, "Hosts: %d, of which %d have yet to renew\n", a.Hosts, a.Behind)
		for _, h := range a.HostsBehind {
			fmt.Fprintf(w, "Host behind: %s %s (%s)\n", h.Node, h.Name, h.Status)
		}
	})
}
