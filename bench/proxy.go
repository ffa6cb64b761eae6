package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

const connections = 32 // kept alive, each with one request at a time

// benchProxy sends the same small requests through this platform's load balancer, nginx and haproxy, in turns, to the same upstream,
// all with kept connections on both sides and a choice by path. CPU is the proxy's own: the whole platform's for ours, with its
// metrics and whatever else it does meanwhile; master and worker for nginx.
func benchProxy(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "neargate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	body := []byte(strings.Repeat("x", s.size))
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })}
	go web.Serve(upstream)
	defer web.Close()

	type contender struct {
		name    string
		program *program
		address string
		cpu     samples
	}
	var all []*contender
	type opening struct {
		name string
		open func(context.Context, settings, string, string) (*program, string, error)
	}
	programs := []opening{{"neargate", openBalancer}, {"nginx", openNginx}, {"haproxy", openHaproxy}}
	if s.before != "" {
		programs = append(programs, opening{"before", func(ctx context.Context, s settings, dir, upstream string) (*program, string, error) {
			s.neargate = s.before
			return openBalancer(ctx, s, filepath.Join(dir, "before"), upstream)
		}})
	}
	for _, open := range programs {
		p, address, err := open.open(ctx, s, dir, upstream.Addr().String())
		if err != nil {
			return fmt.Errorf("%s: %w", open.name, err)
		}
		defer p.stop(syscall.SIGINT)
		if err := waitServed(ctx, p, address, s.size); err != nil {
			return fmt.Errorf("%s: %w", open.name, err)
		}
		all = append(all, &contender{open.name, p, address, nil})
	}
	for i := range s.rounds + 1 {
		for _, c := range all {
			before := cpuOf(c.program.Process.Pid)
			if err := request(ctx, c.address, s.requests, s.size); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if i > 0 { // the first round warms up
				c.cpu = append(c.cpu, (cpuOf(c.program.Process.Pid)-before)/time.Duration(s.requests))
			}
		}
	}
	for _, c := range all {
		fmt.Printf("%-9s CPU a request: %s (%s to %s), %.2f of nginx's\n", c.name, us(c.cpu.median()), us(c.cpu.quantile(0.25)), us(c.cpu.quantile(0.75)),
			float64(c.cpu.median())/float64(all[1].cpu.median()))
	}
	return nil
}

// request sends n requests over the connections and reads the answers; any that is not a 200 is an error.
func request(ctx context.Context, address string, n, size int) error {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, connections)
	var running sync.WaitGroup
	for range connections {
		running.Go(func() {
			errs <- requestOn(ctx, address, &left, size)
		})
	}
	running.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func requestOn(ctx context.Context, address string, left *atomic.Int64, size int) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	line := []byte("GET /api/users/7 HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	for left.Add(-1) >= 0 && ctx.Err() == nil {
		if _, err := c.Write(line); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || n != int64(size) {
			return fmt.Errorf("answer %s with %d bytes: %w", resp.Status, n, err)
		}
	}
	return ctx.Err()
}

// waitServed returns once a request is answered.
func waitServed(ctx context.Context, p *program, address string, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := request(ctx, address, 1, size)
		if err == nil {
			return nil
		}
		select {
		case ended := <-p.ended:
			return fmt.Errorf("ended: %w\n%s", ended, p.output.String())
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// openBalancer makes a load balancer with a rule by path through the public API.
func openBalancer(ctx context.Context, s settings, dir, upstream string) (*program, string, error) {
	p, err := startPlatform(ctx, s.neargate, filepath.Join(dir, "neargate"), "fake")
	if err != nil {
		return nil, "", err
	}
	address, err := p.balance(ctx, upstream)
	if err != nil {
		return nil, "", errors.Join(err, p.stop(syscall.SIGINT))
	}
	return p.program, address, nil
}

func (p *platform) balance(ctx context.Context, upstream string) (address string, err error) {
	host, portText, _ := net.SplitHostPort(upstream)
	targetPort, _ := strconv.ParseInt(portText, 10, 32)
	vpcs, err := p.EC2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})
	if err != nil {
		return "", err
	}
	subnets, err := p.EC2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	if err != nil {
		return "", err
	}
	group, err := p.ELB.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{
		Name: aws.String("bench"), Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: vpcs.Vpcs[0].VpcId, TargetType: elbtypes.TargetTypeEnumIp,
	})
	if err != nil {
		return "", err
	}
	arn := group.TargetGroups[0].TargetGroupArn
	if _, err := p.ELB.RegisterTargets(ctx, &elb.RegisterTargetsInput{
		TargetGroupArn: arn, Targets: []elbtypes.TargetDescription{{Id: &host, Port: aws.Int32(int32(targetPort)), AvailabilityZone: aws.String("all")}},
	}); err != nil {
		return "", err
	}
	var ids []string
	for _, n := range subnets.Subnets {
		ids = append(ids, *n.SubnetId)
	}
	lb, err := p.ELB.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("bench"), Subnets: ids})
	if err != nil {
		return "", err
	}
	if address, err = freePort(); err != nil {
		return "", err
	}
	_, portText, _ = net.SplitHostPort(address)
	port, _ := strconv.ParseInt(portText, 10, 32)
	l, err := p.ELB.CreateListener(ctx, &elb.CreateListenerInput{
		LoadBalancerArn: lb.LoadBalancers[0].LoadBalancerArn, Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(int32(port)),
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: aws.String("404")}}},
	})
	if err != nil {
		return "", err
	}
	_, err = p.ELB.CreateRule(ctx, &elb.CreateRuleInput{
		ListenerArn: l.Listeners[0].ListenerArn, Priority: aws.Int32(1),
		Conditions: []elbtypes.RuleCondition{{Field: aws.String("path-pattern"), Values: []string{"/api/users*"}}},
		Actions:    []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: arn}},
	})
	return address, err
}

// openNginx starts one worker; its log is off, as is our access log.
func openNginx(_ context.Context, _ settings, dir, upstream string) (*program, string, error) {
	return openPeer(dir, "nginx", `
daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  upstream users { server %[2]s; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen %[3]s;
    location / { return 404; }
    location /api/users {
      proxy_pass http://users; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
    }
  }
}
`, upstream, "-p", dir, "-c")
}

func openHaproxy(_ context.Context, _ settings, dir, upstream string) (*program, string, error) {
	return openPeer(dir, "haproxy", `
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend f
  bind %[3]s
  http-request set-header X-Forwarded-Proto http
  acl users path_beg /api/users
  use_backend users if users
backend users
  server one %[2]s
`, upstream, "-db", "-f")
}

// openPeer starts a proxy in the foreground with a configuration of its own.
func openPeer(dir, name, configuration, upstream string, args ...string) (*program, string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // where Debian has it, not on everybody's PATH
	}
	address, err := freePort()
	if err != nil {
		return nil, "", err
	}
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, dir, upstream, address), 0o644); err != nil {
		return nil, "", err
	}
	p, err := startProgram(path, append(args, file)...)
	return p, address, err
}
