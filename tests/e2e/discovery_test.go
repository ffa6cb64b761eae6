package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/miekg/dns"
)

// ask sends one question to the platform's DNS server.
func (p *platform) ask(name string, kind uint16) (answers []dns.RR) {
	p.t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	in, _, err := (&dns.Client{Timeout: 30 * time.Second}).Exchange(q, p.dns)
	if err != nil {
		p.t.Fatal(err)
	}
	return in.Answer
}

// TestDiscovery registers a service's tasks in a private namespace, asks for them from outside, and from within a task by the
// resolver that it has; a load balancer's name answers there too, with an address that serves.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := start(t)
	shell := p.pushShell()
	vpc := p.text("Vpcs[0].VpcId", "ec2", "describe-vpcs")
	operation := p.text("OperationId", "servicediscovery", "create-private-dns-namespace", "--name", "corp.internal", "--vpc", vpc)
	var namespace string
	eventually(t, time.Minute, "the namespace is made", func() (bool, string) {
		got := strings.Fields(p.text("Operation.[Status, Targets.NAMESPACE]", "servicediscovery", "get-operation", "--operation-id", operation))
		if len(got) == 2 {
			namespace = got[1]
		}
		return len(got) == 2 && got[0] == "SUCCESS", strings.Join(got, " ")
	})
	registry := p.text("Service.Arn", "servicediscovery", "create-service", "--name", "web", "--dns-config",
		"NamespaceId="+namespace+",DnsRecords=[{Type=SRV,TTL=1},{Type=A,TTL=1}]", "--health-check-custom-config", "FailureThreshold=1")

	// Host ports are dynamic, so SRV is the record that says all.
	p.register("web", ecstypes.ContainerDefinition{Image: &shell, Command: []string{"echo hello from web >/index.html; exec busybox httpd -f -p 80 -h /"},
		PortMappings: []ecstypes.PortMapping{{ContainerPort: aws.Int32(80), HostPort: aws.Int32(0)}}})
	c := p.client()
	_, err := c.ECS.CreateService(t.Context(), &ecs.CreateServiceInput{
		ServiceName: aws.String("web"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(2),
		ServiceRegistries: []ecstypes.ServiceRegistry{{RegistryArn: &registry, ContainerName: aws.String("main"), ContainerPort: aws.Int32(80)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.aws(nil, "ecs", "wait", "services-stable", "--services", "web")

	var ports []int // of the host, as ECS says
	tasks, err := c.Tasks(t.Context(), "default", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		d, err := c.ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{task.ID}})
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, int(*d.Tasks[0].Containers[0].NetworkBindings[0].HostPort))
	}
	eventually(t, time.Minute, "SRV records name both tasks", func() (bool, string) {
		var got []int
		srv := p.ask("web.corp.internal", dns.TypeSRV)
		for _, rr := range srv {
			s := rr.(*dns.SRV)
			got = append(got, int(s.Port))
			if len(p.ask(s.Target, dns.TypeA)) == 0 {
				return false, s.Target + " has no address"
			}
		}
		slices.Sort(ports)
		slices.Sort(got)
		return slices.Equal(ports, got), dnsText(srv)
	})
	if got := p.ask("web.corp.internal", dns.TypeA); len(got) == 0 {
		t.Error("web.corp.internal has no A record")
	}

	// The same service behind a load balancer, by our own verb.
	url := strings.TrimSpace(p.deployed("balanced", shell))
	name := strings.TrimPrefix(url, "http://")
	address := p.ask(name, dns.TypeA)
	if len(address) == 0 {
		t.Fatalf("%s has no address", name)
	}
	for _, rr := range address {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(rr.(*dns.A).A.String(), "80"), 30*time.Second)
		if err != nil {
			t.Errorf("%s is not reached at its address: %v", name, err)
			continue
		}
		conn.Close()
	}

	out, errs, err := p.neargate("run", shell, "busybox nslookup web.corp.internal && busybox wget -q -O - "+url+"/")
	if err != nil || !strings.Contains(out, "web.corp.internal") || !strings.Contains(out, "hello from balanced") {
		t.Errorf("from within a task: %v\n%s%s", err, out, errs)
	}
}

// deployed puts a small web server behind a load balancer and returns its URL.
func (p *platform) deployed(name, shell string) string {
	p.t.Helper()
	out, errs, err := p.neargate("deploy", name, shell, "--port", "80", "echo hello from "+name+" >/index.html; exec busybox httpd -f -p 80 -h /")
	if err != nil {
		p.t.Fatalf("deploy %s: %v\n%s", name, err, errs)
	}
	return out
}

func dnsText(rrs []dns.RR) string {
	var s []string
	for _, rr := range rrs {
		s = append(s, rr.String())
	}
	return strings.Join(s, "; ")
}
