package ecsagent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// maxTelemetry is the size of a message of telemetry: a megabyte, and the headers before it.
const maxTelemetry = 1<<20 + 64<<10

// publishHealth is what is looked at of a PublishHealthRequest.
type publishHealth struct {
	Tasks []struct {
		TaskArn    string `json:"taskArn"`
		Containers []struct {
			ContainerName string  `json:"containerName"`
			HealthStatus  string  `json:"healthStatus"`
			StatusSince   float64 `json:"statusSince"` // seconds since 1970
		} `json:"containers"`
	} `json:"tasks"`
}

// listen serves a connection by which an agent sends telemetry. Health goes where that of the platform's own agents goes; figures of use have no
// reader here, and are acknowledged.
func (g *Gateway) listen(ctx context.Context, conn *datachannel.Conn, node string) error {
	conn.Limit(maxTelemetry)
	group, ctx := errgroup.WithContext(ctx)
	send := func(kind string, message any) error {
		b, err := encode(kind, message)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return conn.WriteText(ctx, b)
	}
	group.Go(func() error {
		rotate := g.Clock.After(g.Rotation)
		for {
			select {
			case <-g.Clock.After(heartbeat):
			case <-rotate:
				return ended("it is time for another connection")
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := send("HeartbeatMessage", heartbeatMessage{Healthy: true}); err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		for {
			b, err := conn.ReadText(ctx)
			if err != nil {
				return ended("the connection has ended: " + err.Error())
			}
			// Each message is signed once more, as a request would be: headers come before it. Who sends it the connection's own signature has told.
			if _, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok && b[0] != '{' {
				b = body
			}
			var f frame
			if err := json.Unmarshal(b, &f); err != nil {
				return fmt.Errorf("a message that is not JSON: %w", err)
			}
			answer := map[string]string{"PublishMetricsRequest": "AckPublishMetric", "PublishHealthRequest": "AckPublishHealth",
				"PublishInstanceStatusRequest": "AckPublishInstanceStatus", "StartTelemetrySessionRequest": "HeartbeatMessage"}[f.Type]
			switch f.Type {
			case "PublishHealthRequest":
				var m publishHealth
				if err := json.Unmarshal(f.Message, &m); err != nil {
					return fmt.Errorf("a %s that cannot be read: %w", f.Type, err)
				}
				if err := g.Dispatcher.ReportHealth(ctx, node, m.statuses()); err != nil {
					return fmt.Errorf("health could not be taken in: %w", err)
				}
			case "StartTelemetrySessionRequest":
				if err := send(answer, heartbeatMessage{Healthy: true}); err != nil {
					return err
				}
				continue
			}
			if answer == "" {
				continue // a newer agent's
			}
			if err := send(answer, map[string]string{"message": "ok"}); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

// statuses are reports that say nothing but how containers are.
func (m publishHealth) statuses() (list []*agentapi.TaskStatus) {
	for _, t := range m.Tasks {
		s := &agentapi.TaskStatus{TaskId: taskID(t.TaskArn)}
		for _, c := range t.Containers {
			health := agentapi.Health_HEALTH_UNKNOWN
			switch c.HealthStatus {
			case "HEALTHY":
				health = agentapi.Health_HEALTH_HEALTHY
			case "UNHEALTHY":
				health = agentapi.Health_HEALTH_UNHEALTHY
			}
			since := time.UnixMilli(int64(c.StatusSince * 1000))
			s.Containers = append(s.Containers, &agentapi.ContainerStatus{Name: c.ContainerName, Health: health, HealthSince: timestamppb.New(since)})
		}
		list = append(list, s)
	}
	return list
}
