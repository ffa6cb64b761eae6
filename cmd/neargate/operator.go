package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func operatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "operator", Short: "Look after the servers of a cluster",
		Long: `Look after the servers of a cluster: by its public API, any of whose servers answers, with the root credentials.`,
	}
	cmd.AddCommand(membersCommand(), removeCommand(), tokenCommand(), snapshotCommand(), scrubCommand(), objectStoreCommand(), authorityCommand())
	return cmd
}

func membersCommand() *cobra.Command {
	return clientVerb(&cobra.Command{
		Use: "members", Short: "List the servers of the cluster", Args: cobra.NoArgs, Example: "  neargate operator members",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		list, version, err := c.Members(cmd.Context())
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tADDRESS\tROLE\tVERSION\tLAG\tHEALTH")
			for _, s := range list {
				health := "healthy"
				if !s.Healthy {
					health = "not healthy: " + s.Reason
				}
				speaks := "-"
				if s.Version != 0 {
					speaks = fmt.Sprint(s.Version)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", s.ID, s.Address, s.Role, speaks, s.Lag, health)
			}
			if !slices.ContainsFunc(list, func(s client.ServerDescription) bool { return s.Role == "leader" }) {
				fmt.Fprintf(w, "No server leads: nothing can be changed until a majority of those with a vote is there. This is what %s knows.\n", c.Config.Endpoint)
			}
			fmt.Fprintf(w, "The cluster is at version %d.\n", version)
		})
	})
}

func scrubCommand() *cobra.Command {
	return clientVerb(&cobra.Command{
		Use: "scrub", Short: "Say how the registry's layers on a server's disk are", Args: cobra.NoArgs,
		Long: `Say how the registry's layers on the disk of the server that answers are. Every server reads its layers again, all of them within a week,
and holds them against their digests. What has rotted is put aside and fetched from elsewhere; what is nowhere is named here and has to be pushed again.`,
		Example: "  neargate operator scrub --endpoint http://10.0.0.5:4566",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		s, err := c.Scrub(cmd.Context())
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), s, func(w io.Writer) {
			switch {
			case s.Began.IsZero():
				fmt.Fprintln(w, "Nothing was read again yet.")
			case s.Ended.IsZero():
				fmt.Fprintf(w, "Reading since %s: %d layers and manifests, %d bytes so far.\n", s.Began.Format(time.RFC3339), s.Blobs, s.Bytes)
			default:
				fmt.Fprintf(w, "Read from %s to %s: %d layers and manifests, %d bytes.\n", s.Began.Format(time.RFC3339), s.Ended.Format(time.RFC3339), s.Blobs, s.Bytes)
			}
			fmt.Fprintf(w, "Rotten: %d. Repaired: %d. Lost: %d.\n", s.Rotten, s.Repaired, len(s.Lost))
			for _, d := range s.Lost {
				fmt.Fprintln(w, d)
			}
		})
	})
}

func removeCommand() *cobra.Command {
	return clientVerb(&cobra.Command{
		Use: "remove SERVER", Short: "Remove a server from the cluster for good", Args: cobra.ExactArgs(1),
		Long: `Remove a server from the cluster for good: one that is lost, or that is to be taken away. Stop it, if it runs, and empty its data
directory; with a token of "neargate operator token" it can come back as a new one.`,
		Example: "  neargate operator remove 4be1",
	}, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		id, err := c.RemoveServer(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), map[string]string{"id": id}, func(w io.Writer) { fmt.Fprintf(w, "Server %s is removed.\n", id) })
	})
}

func tokenCommand() *cobra.Command {
	var role string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "token", Short: "Make a token by which one host joins the cluster", Args: cobra.NoArgs,
		Long: `Make a token by which one host joins the cluster. It serves one host, once, and ends by itself. The bootstrap secret of the first
servers admits agents as well, until it is revoked, but no server.`,
		Example: "  neargate server --data DIR --peer-listen 10.0.0.9:4646 --join 10.0.0.5:4646 --join-token \"$(neargate operator token --role server)\"",
	}
	cmd.Flags().StringVar(&role, "role", "agent", "what the host is to be: agent or server")
	cmd.Flags().DurationVar(&life, "life", time.Hour, "for how long the token can be used, up to 168h")
	cmd.AddCommand(clientVerb(&cobra.Command{
		Use: "revoke-secret", Short: "Let no more hosts join by the bootstrap secret", Args: cobra.NoArgs,
		Long: `Let no more hosts join by the bootstrap secret of the first servers: one-time tokens are the way then. Hosts that are in the cluster stay in it. It cannot
be undone, other than by restoring a snapshot from before.`,
		Example: "  neargate operator token revoke-secret",
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		if err := c.RevokeSecret(cmd.Context()); err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), map[string]bool{"revoked": true}, func(w io.Writer) { fmt.Fprintln(w, "The bootstrap secret admits no more hosts.") })
	}))
	return clientVerb(cmd, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		if life < time.Minute {
			return errors.New("--life is at least 1m")
		}
		t, err := c.CreateJoinToken(cmd.Context(), role, life)
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), t, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
	})
}

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Short: "Save the state, or put a saved one in its place",
		Long: `Save the state of the cluster, or put a saved one in its place. It is all that the servers have agreed upon; the registry's layers are
not in it.`,
	}
	save := &cobra.Command{
		Use: "save FILE", Short: "Save the state to a new file", Args: cobra.ExactArgs(1), Example: "  neargate operator snapshot save neargate.snapshot",
	}
	restore := &cobra.Command{
		Use: "restore FILE", Short: "Replace the state by a saved one", Args: cobra.ExactArgs(1),
		Long: `Replace all of the state, on all servers, by a saved one. What was done since is undone; tasks that the saved state does not know go on
running until it is decided about them. What is sealed in it (access keys, secrets) can be opened only by servers that have the sealing key of the
cluster that it is from, DIR/keys/sealing: a new cluster for it begins with a copy of DIR/keys.`,
		Example: "  neargate operator snapshot restore neargate.snapshot",
	}
	cmd.AddCommand(
		clientVerb(save, "", func(cmd *cobra.Command, args []string, c *client.Client, _ *connection) error {
			return saveSnapshot(cmd, c, args[0])
		}),
		clientVerb(restore, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			r, err := c.RestoreSnapshot(cmd.Context(), f)
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), map[string]uint64{"revision": r}, func(w io.Writer) { fmt.Fprintf(w, "The state is restored, as revision %d.\n", r) })
		}),
	)
	return cmd
}

// saveSnapshot leaves a whole file or none.
func saveSnapshot(cmd *cobra.Command, c *client.Client, name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s is there already", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".neargate-snapshot-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, rightly, once it was renamed
	err = c.SaveSnapshot(cmd.Context(), f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
