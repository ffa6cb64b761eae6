package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/client"
)

// TestSecurityGroups makes groups and rules with the AWS CLI and sees what tasks reach by them. The host itself reaches every task.
func TestSecurityGroups(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	subnet := p.text("Subnets[0].SubnetId", "ec2", "describe-subnets")
	group := func(name string) string {
		return p.text("GroupId", "ec2", "create-security-group", "--group-name", name, "--description", "tasks of "+name, "--tag-specifications", "ResourceType=security-group,Tags=[{Key=team,Value=a}]")
	}
	web, clients := group("web"), group("clients")
	vpc := func(groups ...string) *ecstypes.NetworkConfiguration {
		return &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{subnet}, SecurityGroups: groups}}
	}
	run := func(family, command string, groups ...string) string {
		t.Helper()
		ctx, c := t.Context(), p.client().ECS
		_, err := c.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: &family, NetworkMode: ecstypes.NetworkModeAwsvpc, ContainerDefinitions: []ecstypes.ContainerDefinition{
			{Name: aws.String("main"), Image: &shell, Memory: aws.Int32(64), Command: []string{command}}}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: &family, NetworkConfiguration: vpc(groups...)})
		if err != nil || len(out.Tasks) != 1 {
			t.Fatal(err, out)
		}
		return *out.Tasks[0].TaskArn
	}
	server := run("web", "echo hello >/index.html; exec busybox httpd -f -p 80 -h /", web)
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", server)
	address := p.text("tasks[0].attachments[0].details[?name=='privateIPv4Address'].value | [0]", "ecs", "describe-tasks", "--tasks", server)
	if mac := p.text("tasks[0].attachments[0].details[?name=='macAddress'].value | [0]", "ecs", "describe-tasks", "--tasks", server); !strings.HasPrefix(mac, "02:42:") {
		t.Errorf("the interface's hardware address is %s", mac)
	}
	// Its interface, by the id that the task shows.
	detail := func(task, name string) string {
		return p.text("tasks[0].attachments[0].details[?name=='"+name+"'].value | [0]", "ecs", "describe-tasks", "--tasks", task)
	}
	eni, six := detail(server, "networkInterfaceId"), detail(server, "ipv6Address")
	ipv6 := p.text("containerInstances[0].attributes[?name=='ecs.capability.task-eni.ipv6'] | length(@)", "ecs", "describe-container-instances", "--container-instances", p.instance()) == "1"
	if strings.HasPrefix(six, "fd8e:2f17:5b6") != ipv6 {
		t.Errorf("the task's IPv6 address is %s, and its host has IPv6: %v", six, ipv6)
	}
	want := strings.Join([]string{address, six, web, subnet, "in-use"}, "\t")
	if got := p.text("NetworkInterfaces[0].[PrivateIpAddress, Ipv6Addresses[0].Ipv6Address, Groups[0].GroupId, SubnetId, Status]", "ec2", "describe-network-interfaces", "--network-interface-ids", eni); got != want {
		t.Errorf("the task's interface: %s, want %s", got, want)
	}
	if got := p.text("NetworkInterfaces[].NetworkInterfaceId", "ec2", "describe-network-interfaces", "--filters", "Name=group-id,Values="+web, "Name=addresses.private-ip-address,Values="+address); got != eni {
		t.Errorf("interfaces by group and address: %s, want %s", got, eni)
	}
	p.refused("An error occurred (InvalidNetworkInterfaceID.NotFound) when calling the DescribeNetworkInterfaces operation: The networkInterface ID 'eni-0123456789abcdef0' does not exist",
		"ec2", "describe-network-interfaces", "--network-interface-ids", "eni-0123456789abcdef0")
	eventually(t, time.Minute, "the host reaches the task", func() (bool, string) {
		r, err := http.Get("http://" + address)
		if err != nil {
			return false, err.Error()
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return err == nil && strings.Contains(string(b), "hello"), string(b)
	})
	// reached runs a task that fetches the page, or does not.
	reached := func(groups ...string) bool {
		t.Helper()
		task := run("client", `busybox printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 3 `+address+` 80 | busybox grep hello`, groups...)
		end, err := p.client().WaitStopped(t.Context(), client.Task{Cluster: "default", ID: task[strings.LastIndex(task, "/")+1:]})
		if err != nil {
			t.Fatalf("a task in %v that fetches the page: %v", groups, err)
		}
		return end.ExitCode == 0
	}
	// reaches is for after a change, which a host may learn of after it has started the next task.
	reaches := func(want bool, groups ...string) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprintf("tasks in %v to fetch the page: %v", groups, want), func() (bool, string) { return reached(groups...) == want, "" })
	}
	if reached(clients) {
		t.Error("a task fetches the page, which no rule allows")
	}
	p.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", web, "--protocol", "tcp", "--port", "80", "--source-group", clients)
	reaches(true, clients)
	if reached() {
		t.Error("a task of the default group fetches the page, which no rule allows")
	}
	rule := p.text("SecurityGroupRules[?!IsEgress].SecurityGroupRuleId | [0]", "ec2", "describe-security-group-rules", "--filters", "Name=group-id,Values="+web)
	p.aws(nil, "ec2", "create-tags", "--resources", rule, "--tags", "Key=stage,Value=beta")
	p.aws(nil, "ec2", "modify-security-group-rules", "--group-id", web, "--security-group-rules", "SecurityGroupRuleId="+rule+",SecurityGroupRule={IpProtocol=tcp,FromPort=81,ToPort=81,ReferencedGroupId="+clients+",Description=later}")
	reaches(false, clients)
	if got := p.text("SecurityGroupRules[].[SecurityGroupRuleId, FromPort, Description, Tags[0].Value]", "ec2", "describe-security-group-rules", "--filters", "Name=tag:stage,Values=beta"); got != rule+"\t81\tlater\tbeta" {
		t.Errorf("the rule with the tag: %s", got)
	}
	p.aws(nil, "ec2", "revoke-security-group-ingress", "--group-id", web, "--security-group-rule-ids", rule)
	block := p.text("Vpcs[0].CidrBlock", "ec2", "describe-vpcs")
	p.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", web, "--protocol", "tcp", "--port", "1-100", "--cidr", block)
	reaches(true)
	p.aws(nil, "ec2", "revoke-security-group-egress", "--group-id", clients, "--ip-permissions", `[{"IpProtocol":"-1","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}]`)
	reaches(false, clients)

	calling := "An error occurred (%s) when calling the %s operation: %s"
	p.refused(fmt.Sprintf(calling, "InvalidPermission.Duplicate", "AuthorizeSecurityGroupIngress", fmt.Sprintf(`the specified rule "peer: %s, TCP, from port: 1, to port: 100, ALLOW" already exists`, block)),
		"ec2", "authorize-security-group-ingress", "--group-id", web, "--protocol", "tcp", "--port", "1-100", "--cidr", block)
	p.refused(fmt.Sprintf(calling, "DependencyViolation", "DeleteSecurityGroup", "resource "+web+" has a dependent object"), "ec2", "delete-security-group", "--group-id", web)
	p.aws(nil, "ec2", "create-tags", "--resources", web, "--tags", "Key=stage,Value=beta")
	if got := p.text("SecurityGroups[].GroupName", "ec2", "describe-security-groups", "--filters", "Name=tag:stage,Values=be*"); got != "web" {
		t.Errorf("groups by a tag: %s", got)
	}
	p.aws(nil, "ec2", "delete-tags", "--resources", web, "--tags", "Key=stage")
	// An account that wants no IPv6 has none in what starts from then on.
	p.aws(nil, "ecs", "put-account-setting-default", "--name", "dualStackIPv6", "--value", "disabled")
	plain := run("plain", "exec busybox sleep 600")
	p.aws(nil, "ecs", "wait", "tasks-running", "--tasks", plain)
	if got := detail(plain, "privateIPv4Address") + " " + detail(plain, "ipv6Address"); !strings.HasPrefix(got, "10.") || !strings.HasSuffix(got, " None") {
		t.Errorf("addresses without dualStackIPv6: %s", got)
	}
	p.aws(nil, "ecs", "stop-task", "--task", plain)
	p.aws(nil, "ecs", "stop-task", "--task", server)
	p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", server)
	for _, id := range []string{web, clients} {
		p.aws(nil, "ec2", "delete-security-group", "--group-id", id)
	}
	if got := p.text("SecurityGroups[].GroupName", "ec2", "describe-security-groups"); got != "default" {
		t.Errorf("groups at the end: %s", got)
	}
}
