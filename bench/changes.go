package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// A change is a call of the API that commits one transaction. Its name holds the client's number and how many that client has made, so
// that no two are in conflict and each can be found again.
type change struct {
	name, target string
	body         string // %s is the name
	// list yields the names that a server has, a page at a time.
	list func(ctx context.Context, c *oneServer, token *string) (names []string, next *string, err error)
}

var changeKinds = []change{
	{"small", "AmazonEC2ContainerServiceV20141113.CreateCluster", `{"clusterName": "%s"}`,
		func(ctx context.Context, c *oneServer, token *string) ([]string, *string, error) {
			out, err := c.ECS.ListClusters(ctx, &ecs.ListClustersInput{NextToken: token})
			if err != nil {
				return nil, nil, err
			}
			return out.ClusterArns, out.NextToken, nil
		}},
	// A web service's, 1 kB of JSON.
	{"definition", "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition", `{"family": "%s", "networkMode": "bridge", "containerDefinitions": [` +
		`{"name": "web", "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/shop/web:2026-11-26.1", "cpu": 256, "memory": 512, "memoryReservation": 256, "essential": true, ` +
		`"portMappings": [{"containerPort": 8080, "hostPort": 0, "protocol": "tcp"}], "environment": [{"name": "LOG_LEVEL", "value": "info"}, ` +
		`{"name": "DATABASE_HOST", "value": "orders.internal.example.com"}, {"name": "CACHE_HOST", "value": "cache.internal.example.com"}, {"name": "WORKERS", "value": "4"}], ` +
		`"healthCheck": {"command": ["CMD-SHELL", "curl -f http://localhost:8080/healthz || exit 1"], "interval": 30, "timeout": 5, "retries": 3}, "stopTimeout": 30}, ` +
		`{"name": "metrics", "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/shop/metrics:3.1", "cpu": 64, "memory": 128, "essential": false, ` +
		`"environment": [{"name": "TARGET", "value": "http://web:8080/metrics"}], "links": ["web"]}]}`,
		func(ctx context.Context, c *oneServer, token *string) ([]string, *string, error) {
			out, err := c.ECS.ListTaskDefinitions(ctx, &ecs.ListTaskDefinitionsInput{NextToken: token})
			if err != nil {
				return nil, nil, err
			}
			return out.TaskDefinitionArns, out.NextToken, nil
		}},
}

// Where the clients' connections lead.
type changeRoute struct {
	name    string
	servers int
	spread  bool // over all servers; otherwise to the leader
}

var changeRoutes = []changeRoute{
	{"three, by the leader", 3, false},
	{"three, by any", 3, true},
	{"one alone", 1, false},
}

const (
	changeTurn = 3 * time.Second
	// changeRate keeps the throttle in the way of a call, and out of its way.
	changeRate = "1000000"
)

// changing is what is measured of one kind, on one route, with one number of clients.
type changing struct {
	build, route, kind string
	clients            int
	rate               []float64
	median, late       samples // latencies of each turn: p50, p99
	leader, followers  samples // CPU a change; of all followers together
	client             samples
	refused            int
}

// benchChanges measures committed changes through the API. Each round starts every cluster anew, every number of clients has a turn of changeTurn on
// it, and then every server is asked for everything that was acknowledged.
func benchChanges(ctx context.Context, s settings) error {
	clients, err := numbers("clients", s.clients, 1)
	if err != nil {
		return err
	}
	builds := []struct{ name, binary string }{{"", s.neargate}}
	if s.before != "" {
		builds = append(builds, struct{ name, binary string }{"before", s.before})
	}
	var all []*changing
	find := func(build, route, kind string, clients int) *changing {
		for _, c := range all {
			if c.build == build && c.route == route && c.kind == kind && c.clients == clients {
				return c
			}
		}
		all = append(all, &changing{build: build, route: route, kind: kind, clients: clients})
		return all[len(all)-1]
	}
	defer func() { // what there is
		slices.SortStableFunc(all, func(a, b *changing) int {
			return cmp.Or(strings.Compare(a.route, b.route), strings.Compare(a.kind, b.kind), cmp.Compare(a.clients, b.clients))
		})
		for _, c := range all {
			c.print()
		}
		fmt.Println(load())
	}()
	for range (s.rounds + 4) / 5 { // one takes two minutes
		for _, route := range changeRoutes {
			for _, kind := range changeKinds {
				if !strings.Contains(route.name+", "+kind.name, s.only) {
					continue
				}
				for _, build := range builds {
					run := &changeRun{ctx: ctx, route: route, kind: kind, flags: strings.Fields(s.serverFlags)}
					if err := run.all(build.binary, clients, func(n int) *changing { return find(build.name, route.name, kind.name, n) }); err != nil {
						return fmt.Errorf("%s %s, %s: %w", build.name, route.name, kind.name, err)
					}
				}
			}
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("there is nothing whose name contains %q", s.only)
	}
	return nil
}

func (c *changing) print() {
	slices.Sort(c.rate)
	if len(c.rate) == 0 {
		return
	}
	leader, followers := c.leader.median(), c.followers.median()
	cores := func(cpu time.Duration) float64 { return float64(runtime.NumCPU()) / max(cpu, 1).Seconds() }
	fmt.Printf("%-6s %-20s %-10s %4d clients %6.0f/s, p50 %s p99 %s; CPU a change: leader %s, followers %s, client %s; by CPU: %.0f/s with the clients elsewhere, %.0f/s with each server on a machine of its own; %d refused\n",
		c.build, c.route, c.kind, c.clients, c.rate[(len(c.rate)-1)/2], ms(c.median.median()), ms(c.late.median()),
		us(leader), us(followers), us(c.client.median()), cores(leader+followers), cores(leader), c.refused)
}

// changeRun is one cluster and what is done to it.
type changeRun struct {
	ctx     context.Context
	route   changeRoute
	kind    change
	flags   []string
	servers *servers
	clients []changeClient
}

// changeClient is what one client has done, over all turns.
type changeClient struct {
	sent  int
	lost  map[int]string // those that were not acknowledged, and why
	times samples        // of this turn's, acknowledged or not
}

func (r *changeRun) all(binary string, clients []int, into func(clients int) *changing) (err error) {
	if r.servers, err = startServers(r.ctx, binary, r.route.servers, append([]string{"--api-write-rate", changeRate, "--api-read-rate", changeRate}, r.flags...)...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.servers.stop()) }()
	r.clients = make([]changeClient, slices.Max(clients))
	if err := r.turn(len(r.clients), time.Second, nil); err != nil { // what is made when it is first needed, connections between servers among it
		return err
	}
	for _, n := range clients {
		if err := r.turn(n, changeTurn, into(n)); err != nil {
			return err
		}
	}
	return r.verify()
}

// turn lets n clients send for a while. A turn in which another server came to lead says nothing about who leads: it is made again.
func (r *changeRun) turn(n int, length time.Duration, into *changing) error {
	for range 5 {
		leader, err := r.servers.leader(r.ctx)
		if err != nil {
			return err
		}
		cpu := r.cpu()
		began := time.Now()
		acknowledged, err := r.send(n, leader, began.Add(length))
		if err != nil {
			return err
		}
		took := time.Since(began)
		for i, now := range r.cpu() {
			cpu[i] = now - cpu[i]
		}
		if now, err := r.servers.leader(r.ctx); err != nil || now != leader {
			fmt.Printf("the leader was replaced during a turn of %d clients, which is made again\n", n)
			continue
		}
		if acknowledged == 0 {
			return fmt.Errorf("no change was acknowledged: %v", r.clients[0].lost)
		}
		if into != nil {
			into.add(r, n, leader, acknowledged, took, cpu)
		}
		return nil
	}
	return errors.New("no server leads for long")
}

func (c *changing) add(r *changeRun, n, leader, acknowledged int, took time.Duration, cpu []time.Duration) {
	var times samples
	for i := range r.clients[:n] {
		times = append(times, r.clients[i].times...)
	}
	each := func(d time.Duration) time.Duration { return d / time.Duration(acknowledged) }
	var followers time.Duration
	for i, d := range cpu[1:] {
		if i != leader {
			followers += d
		}
	}
	c.rate = append(c.rate, float64(acknowledged)/took.Seconds())
	c.median, c.late = append(c.median, times.median()), append(c.late, times.quantile(.99))
	c.leader, c.followers, c.client = append(c.leader, each(cpu[1+leader])), append(c.followers, each(followers)), append(c.client, each(cpu[0]))
	c.refused += len(times) - acknowledged
}

// cpu is what this process has used, then each server.
func (r *changeRun) cpu() []time.Duration {
	pids := []int{os.Getpid()}
	for _, one := range r.servers.all {
		pids = append(pids, one.Process.Pid)
	}
	var all []time.Duration
	for _, pid := range pids {
		p, _ := readProcess(pid)
		all = append(all, p.own)
	}
	return all
}

// send has n clients, all at once, make changes until the end, and counts those acknowledged.
func (r *changeRun) send(n, leader int, end time.Time) (acknowledged int, err error) {
	senders := make([]*sender, n)
	for i := range senders {
		to := leader
		if r.route.spread {
			to = i % len(r.servers.all)
		}
		if senders[i], err = dialSender(r.servers.all[to].listen, r.kind.target); err != nil {
			return 0, err
		}
		defer senders[i].conn.Close()
	}
	var wait sync.WaitGroup
	errs := make([]error, n)
	counts := make([]int, n)
	for i, s := range senders {
		wait.Go(func() { counts[i], errs[i] = r.sendBy(i, s, end) })
	}
	wait.Wait()
	for _, n := range counts {
		acknowledged += n
	}
	return acknowledged, errors.Join(errs...)
}

func (r *changeRun) sendBy(i int, s *sender, end time.Time) (acknowledged int, err error) {
	c := &r.clients[i]
	c.times = c.times[:0]
	before, after, _ := strings.Cut(r.kind.body, "%s")
	var body []byte
	for began := time.Now(); began.Before(end) && r.ctx.Err() == nil; {
		c.sent++
		body = append(append(append(body[:0], before...), changeName(i, c.sent)...), after...)
		status, answer, err := s.post(body, began)
		if err != nil {
			return acknowledged, err
		}
		now := time.Now()
		c.times, began = append(c.times, now.Sub(began)), now
		if status == 200 {
			acknowledged++
			continue
		}
		if c.lost == nil {
			c.lost = map[int]string{}
		}
		c.lost[c.sent] = fmt.Sprintf("%d %s", status, answer)
	}
	return acknowledged, r.ctx.Err()
}

// changeName is the name of a client's change.
func changeName(client, n int) string { return "c" + strconv.Itoa(client) + "-" + strconv.Itoa(n) }

// verify asks every server, each by itself, for all that it has: everything acknowledged, and nothing that was not sent.
func (r *changeRun) verify() error {
	for number, one := range r.servers.all {
		has := make([][]bool, len(r.clients))
		for i := range has {
			has[i] = make([]bool, r.clients[i].sent+1)
		}
		var token *string
		for {
			arns, next, err := r.kind.list(r.ctx, one, token)
			if err != nil {
				return err
			}
			for _, name := range arns {
				name = name[strings.LastIndexByte(name, '/')+1:]
				name, _, _ = strings.Cut(name, ":") // a revision
				client, count, _ := strings.Cut(strings.TrimPrefix(name, "c"), "-")
				i, err := strconv.Atoi(client)
				n, err2 := strconv.Atoi(count)
				if err := errors.Join(err, err2); err != nil || i >= len(has) || n >= len(has[i]) || has[i][n] {
					return fmt.Errorf("server %d has %q, which nobody sent, or twice", number, name)
				}
				has[i][n] = true
			}
			if token = next; aws.ToString(token) == "" {
				break
			}
		}
		for i, c := range r.clients {
			for n := 1; n <= c.sent; n++ {
				if _, lost := c.lost[n]; !has[i][n] && !lost {
					return fmt.Errorf("server %d has not %s, which was acknowledged", number, changeName(i, n))
				}
			}
		}
	}
	for i := range r.clients {
		for _, why := range r.clients[i].lost {
			fmt.Printf("not acknowledged: %s\n", why)
			return nil // one tells
		}
	}
	return nil
}
