package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/client"
)

// deploymentFlags are what run and deploy share.
func deploymentFlags(cmd *cobra.Command, d *client.Deployment, env *[]string) {
	f := cmd.Flags()
	f.Int32Var(&d.CPU, "cpu", 256, "CPU units; 1024 are one core")
	f.Int32Var(&d.Memory, "memory", 256, "MiB")
	f.BoolVar(&d.Exec, "enable-execute-command", false, "allow commands in the tasks: neargate exec, aws ecs execute-command")
	f.StringArrayVarP(env, "env", "e", nil, "environment variable NAME=VALUE; may be repeated")
}

func environment(pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--env %q is not NAME=VALUE", p)
		}
		m[k] = v
	}
	return m, nil
}

func deployCommand() *cobra.Command {
	var d client.Deployment
	var env []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "deploy NAME IMAGE [COMMAND...]", Short: "Create or update a service and print its URL", Args: cobra.MinimumNArgs(2),
		Example: "  neargate deploy users 127.0.0.1:4566/users:v2 --port 3000 --path '/api/users*' --count 2",
	}
	deploymentFlags(cmd, &d, &env)
	f := cmd.Flags()
	f.Int32VarP(&d.Port, "port", "p", 0, "container port to put behind the load balancer; 0: none")
	f.Int32VarP(&d.Count, "count", "n", 1, "tasks")
	f.StringVar(&d.LoadBalancer, "load-balancer", "neargate", "name of the load balancer; created when it is not there")
	f.StringArrayVar(&d.Paths, "path", nil, "path pattern that leads to the service; may be repeated (default: every path)")
	f.StringVar(&d.HealthPath, "health-path", "/", "path of the health check")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until the service is stable")
	f.SetInterspersed(true)
	return clientVerb(cmd, "default", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		var err error
		if d.Environment, err = environment(env); err != nil {
			return err
		}
		d.Name, d.Image, d.Command, d.Cluster = args[0], args[1], args[2:], o.cluster
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		url, err := c.Deploy(ctx, d, func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", a...) })
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), map[string]string{"service": d.Name, "url": url}, func(w io.Writer) {
			if url != "" {
				fmt.Fprintln(w, url)
			}
		})
	})
}
