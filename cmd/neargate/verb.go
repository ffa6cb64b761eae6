package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

// connection are the flags that all client verbs share.
type connection struct {
	client.Config
	cluster string
	output  string
}

// clientVerb makes a verb with the shared flags; do gets a client that is ready to call.
func clientVerb(cmd *cobra.Command, cluster string, do func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error) *cobra.Command {
	var o connection
	f := cmd.Flags()
	f.StringVar(&o.Endpoint, "endpoint", "", "URL of the platform (default: $NEARGATE_ENDPOINT, $AWS_ENDPOINT_URL, http://127.0.0.1:4566)")
	f.StringVar(&o.Region, "region", "", "region (default: $AWS_REGION, us-east-1)")
	f.StringVarP(&o.cluster, "cluster", "c", cluster, "cluster")
	f.StringVarP(&o.output, "output", "o", "text", "output format: text or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.output != "text" && o.output != "json" {
			return fmt.Errorf("--output is text or json, not %q", o.output)
		}
		c, err := client.New(o.Config.FromEnvironment())
		if err != nil {
			return err
		}
		return c.Plain(do(cmd, args, c, &o))
	}
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

// print writes v as JSON, or by the text function.
func (o *connection) print(w io.Writer, v any, text func(io.Writer)) error {
	if o.output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	text(t)
	return t.Flush()
}
