package e2e

import (
	"path"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestFaultInjection has a container make its task's network faulty, and well again, as scripts and agents of AWS FIS do.
func TestFaultInjection(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	for _, driver := range []string{"native", "docker"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			if driver == "docker" {
				dockerEngine(t)
			}
			p := startOn(t, driver)
			image := p.pushShell()
			const script = `busybox httpd -p 8080 -h /bin
fault() { busybox wget -qO- --post-data "$2" $ECS_AGENT_URI/fault/v1/$1 && echo; }
reached() { busybox timeout 10 busybox wget -qO /dev/null http://127.0.0.1:8080/sh && echo reached || echo not reached; }
hole='{"Port":8080,"Protocol":"tcp","TrafficType":"ingress"}'
reached
fault network-blackhole-port/start "$hole"
reached
fault network-blackhole-port/status "$hole"
fault network-packet-loss/start '{"LossPercent":100,"Sources":["0.0.0.0/0"]}'
fault network-packet-loss/status '{}'
while fault network-packet-loss/status '{}' >/dev/null; do :; done; echo too soon
fault network-packet-loss/stop '{}'
fault network-blackhole-port/stop "$hole"
reached`
			_, err := p.client().ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("faulty"), NetworkMode: ecstypes.NetworkModeAwsvpc,
				EnableFaultInjection: aws.Bool(true), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: aws.String("main"), Image: &image, Memory: aws.Int32(64), Command: []string{script}}}})
			if err != nil {
				t.Fatal(err)
			}
			subnets := p.text("Subnets[0].SubnetId", "ec2", "describe-subnets")
			out, err := p.client().ECS.RunTask(t.Context(), &ecs.RunTaskInput{TaskDefinition: aws.String("faulty"),
				NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{subnets}}}})
			if err != nil || len(out.Tasks) != 1 {
				t.Fatal(err, out)
			}
			arn := *out.Tasks[0].TaskArn
			p.ended(arn)
			said, _, err := p.neargate("logs", path.Base(arn))
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.Lines(said) {
				if !strings.HasPrefix(line, "wget: ") {
					lines = append(lines, strings.TrimSpace(line))
				}
			}
			want := []string{"reached", `{"Status":"running"}`, "not reached", `{"Status":"running"}`, `{"Status":"running"}`, `{"Status":"running"}`, "too soon",
				`{"Status":"stopped"}`, `{"Status":"stopped"}`, "reached"}
			if strings.Join(lines, "\n") != strings.Join(want, "\n") {
				t.Errorf("the container wrote\n%s", said)
			}
		})
	}
}
