package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

func envCommand() *cobra.Command {
	return clientVerb(&cobra.Command{
		Use: "env", Short: "Print the variables that point the AWS CLI and the SDKs at the platform", Args: cobra.NoArgs,
		Example: `  eval "$(neargate env)"`,
	}, "", func(cmd *cobra.Command, _ []string, c *client.Client, o *connection) error {
		vars := map[string]string{
			"AWS_ENDPOINT_URL": c.Config.Endpoint, "AWS_REGION": c.Config.Region, "AWS_DEFAULT_REGION": c.Config.Region,
			"AWS_ACCESS_KEY_ID": c.Config.AccessKey, "AWS_SECRET_ACCESS_KEY": c.Config.SecretKey,
		}
		if c.Config.Token != "" {
			vars["AWS_SESSION_TOKEN"] = c.Config.Token
		}
		return o.print(cmd.OutOrStdout(), vars, func(w io.Writer) {
			for _, k := range slices.Sorted(maps.Keys(vars)) {
				fmt.Fprintf(w, "export %s='%s'\n", k, strings.ReplaceAll(vars[k], "'", `'\''`))
			}
			// AWS CLI before 2.13 knows no AWS_ENDPOINT_URL.
			fmt.Fprintln(w, `if [ "$(command -v aws)" ]; then aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }; fi`)
		})
	})
}
