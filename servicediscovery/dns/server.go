// Package dns answers the names of service discovery and of load balancers on one host, and forwards all others to the host's own
// resolvers. It is a data plane: it knows the set ZONES and nothing else.
//
// Answers come from an immutable table behind an atomic pointer; a query takes no lock. The addresses it listens on may change while
// it runs, since the tasks' bridge may come later than the server.
//
// Invariant: once Apply has returned, no answer is made from the older zones. Names below a zone of ours are never forwarded.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/seed-2f228079/neargate/api/agent"
)

// Config of a Server.
type Config struct {
	// Addresses to listen on, host:port, udp and tcp.
	Addresses []string
	// Upstreams resolve the names that are not ours, host:port; nil: those of /etc/resolv.conf. Own addresses among them are left out.
	Upstreams []string
	// Owner says whose task has an address; nil: nobody's. It is called with every query.
	Owner  func(netip.Addr) (account, region string, ok bool)
	Logger *slog.Logger // nil: silent
}

// Server is the sink of ZONES on one host.
type Server struct {
	log   *slog.Logger
	owner func(netip.Addr) (account, region string, ok bool)
	table atomic.Pointer[table]
	up    forwarder

	mu      sync.Mutex
	zones   map[string]*zone // by resource name
	want    []string
	sockets map[string]*socket
	running bool
	closed  bool
}

// socket is one address, served over udp and tcp.
type socket struct {
	udp, tcp *dns.Server
	address  string
}

// New makes a server; it listens once it runs.
func New(c Config) *Server {
	s := &Server{log: c.Logger, owner: c.Owner, zones: map[string]*zone{}, sockets: map[string]*socket{}, want: slices.Clone(c.Addresses)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.up.servers = c.Upstreams
	if c.Upstreams == nil {
		if host, err := dns.ClientConfigFromFile("/etc/resolv.conf"); err == nil {
			for _, a := range host.Servers {
				s.up.servers = append(s.up.servers, net.JoinHostPort(a, host.Port))
			}
		}
	}
	s.table.Store(index(nil))
	return s
}

// Kinds is ZONES.
func (s *Server) Kinds() []agent.Kind { return []agent.Kind{agent.Kind_ZONES} }

// Apply makes u effective.
func (s *Server) Apply(_ context.Context, u *agent.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.Full {
		clear(s.zones)
	}
	for _, n := range u.Removed {
		delete(s.zones, n)
	}
	for _, r := range u.Resources {
		if z := compile(r.GetZone()); z != nil {
			s.zones[r.Name] = z
		}
	}
	s.table.Store(index(s.zones))
	return nil
}

// SetAddresses changes what the server listens on. What cannot be opened is said in the error; the others work.
func (s *Server) SetAddresses(addresses []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = slices.Clone(addresses)
	return s.reopen()
}

// Addresses are those it listens on now.
func (s *Server) Addresses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range s.sockets {
		out = append(out, k.address)
	}
	slices.Sort(out)
	return out
}

// Start opens the addresses; without it Run does, and logs what cannot be opened.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
	return s.reopen()
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(); err != nil {
		s.log.Error("open DNS addresses", "error", err)
	}
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.want = true, nil
	return s.reopen()
}

// reopen makes the sockets those wanted. The caller holds mu.
func (s *Server) reopen() error {
	if !s.running {
		return nil
	}
	for a, k := range s.sockets {
		if !slices.Contains(s.want, a) {
			k.close()
			delete(s.sockets, a)
		}
	}
	var errs []error
	for _, a := range s.want {
		if s.sockets[a] != nil {
			continue
		}
		k, err := s.open(a)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen for DNS on %s: %w", a, err))
			continue
		}
		s.sockets[a] = k
		s.log.Info("DNS listens", "address", k.address)
	}
	var own []string
	for _, k := range s.sockets {
		own = append(own, k.address)
	}
	s.up.own.Store(&own)
	return errors.Join(errs...)
}

// open binds udp and tcp to one port; with port 0 the one that udp got, if tcp can have it.
func (s *Server) open(address string) (*socket, error) {
	for range 10 {
		pc, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err != nil {
			pc.Close()
			if strings.HasSuffix(address, ":0") {
				continue
			}
			return nil, err
		}
		k := &socket{address: pc.LocalAddr().String()}
		local := pc.LocalAddr().(*net.UDPAddr).IP
		h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.answer(w, q, local) })
		if !local.IsUnspecified() { // else an answer needs the address that its query came to
			pc = &quickConn{UDPConn: pc.(*net.UDPConn), server: s}
		}
		k.udp = &dns.Server{PacketConn: pc, Handler: h, UDPSize: dns.DefaultMsgSize}
		k.tcp = &dns.Server{Listener: l, Handler: h, ReadTimeout: 5 * time.Second, IdleTimeout: func() time.Duration { return 10 * time.Second }}
		for _, srv := range []*dns.Server{k.udp, k.tcp} {
			started := make(chan struct{})
			srv.NotifyStartedFunc = func() { close(started) }
			go func() {
				if err := srv.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
					s.log.Error("serve DNS", "address", k.address, "error", err)
				}
			}()
			<-started
		}
		return k, nil
	}
	return nil, errors.New("no port is free for both udp and tcp")
}

func (k *socket) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.udp.ShutdownContext(ctx)
	k.tcp.ShutdownContext(ctx)
}

// answer handles one query that came to the local address.
func (s *Server) answer(w dns.ResponseWriter, q *dns.Msg, local net.IP) {
	m := new(dns.Msg)
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		m.SetRcode(q, dns.RcodeNotImplemented)
		w.WriteMsg(m)
		return
	}
	var from netip.Addr
	overTCP := false
	switch a := w.RemoteAddr().(type) {
	case *net.TCPAddr:
		from, overTCP = a.AddrPort().Addr().Unmap(), true
	case *net.UDPAddr:
		from = a.AddrPort().Addr().Unmap()
	}
	question := q.Question[0]
	z := s.table.Load().view(from, s.owner).zone(strings.ToLower(question.Name))
	if z == nil || question.Qclass != dns.ClassINET {
		m = s.up.forward(q, overTCP)
		if m == nil {
			m = new(dns.Msg)
			m.SetRcode(q, dns.RcodeServerFailure)
		}
	} else {
		m.SetReply(q)
		m.Authoritative, m.RecursionAvailable = true, true
		z.fill(m, question, local)
	}
	m.Compress = true
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = max(size, min(int(o.UDPSize()), 1232))
		if m.IsEdns0() == nil {
			m.SetEdns0(1232, false)
		}
	}
	if overTCP {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	w.WriteMsg(m)
}
