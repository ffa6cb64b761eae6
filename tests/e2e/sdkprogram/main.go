// Command sdkprogram is a program in a container that uses the AWS SDK as it comes: no endpoint, region or credentials are configured.
// It writes a line for each thing it tries, and waits for its end when it is told to.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		fmt.Println("config:", err)
		return
	}
	for _, what := range os.Args[1:] {
		switch what {
		case "whoami":
			out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			if err != nil {
				say(what, err)
				continue
			}
			fmt.Println(what, *out.Arn)
		case "list":
			out, err := ecs.NewFromConfig(cfg).ListClusters(ctx, &ecs.ListClustersInput{})
			if err != nil {
				say(what, err)
				continue
			}
			fmt.Println(what, strings.Join(out.ClusterArns, " "))
		case "create":
			_, err := ecs.NewFromConfig(cfg).CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("mine")})
			say(what, err)
		case "provider":
			c, err := cfg.Credentials.Retrieve(ctx)
			if err != nil {
				say(what, err)
				continue
			}
			fmt.Println(what, c.Source, c.CanExpire && time.Until(c.Expires) > time.Hour && c.SessionToken != "")
		case "protect":
			protection(ctx, http.MethodPut, `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`)
		case "protection":
			protection(ctx, http.MethodGet, "")
		case "others":
			get(ctx, "http://169.254.170.2/v2/credentials/00000000-0000-0000-0000-000000000000")
		case "instance":
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", "169.254.169.254:80")
			if err == nil {
				conn.Close()
			}
			fmt.Println(what, err == nil)
		case "loop":
			for ctx.Err() == nil { // each time with credentials of its own
				cfg, err := config.LoadDefaultConfig(ctx)
				if err == nil {
					_, err = ecs.NewFromConfig(cfg).ListClusters(ctx, &ecs.ListClustersInput{})
				}
				say(what, err)
				time.Sleep(100 * time.Millisecond)
			}
		case "wait":
			<-ctx.Done()
		}
	}
}

// say writes what became of a call: the service's own error, if it is that.
func say(what string, err error) {
	var refused smithy.APIError
	switch {
	case err == nil:
		fmt.Println(what, "ok")
	case errors.As(err, &refused):
		fmt.Printf("%s %s: %s\n", what, refused.ErrorCode(), refused.ErrorMessage())
	default:
		fmt.Println(what, err)
	}
}

func protection(ctx context.Context, method, body string) {
	send(ctx, method, os.Getenv("ECS_AGENT_URI")+"/task-protection/v1/state", body)
}

func get(ctx context.Context, url string) { send(ctx, http.MethodGet, url, "") }

func send(ctx context.Context, method, url, body string) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		fmt.Println(method, err)
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(method, err)
		return
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	fmt.Printf("%s %d %s\n", method, res.StatusCode, bytes.TrimSpace(text))
}
