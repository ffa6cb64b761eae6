package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Port is the peer port: one address for all that servers and agents say to one another, each protocol known by its name in the
// TLS handshake (ALPN). Protocols are added by Handle before Serve.
type Port struct {
	credential *Credential
	log        *slog.Logger
	protocols  map[string]*protocol
}

// Cut is Credential.Cut, of the connections that came in and of those that this server has made.
func (p *Port) Cut() int { return p.credential.Cut() }

// Outdated says whether a connection that a Port has handed over is of a host which has shown a certificate of another authority than the one that
// servers show theirs of: it should come by a new one.
func (p *Port) Outdated(conn net.Conn) bool {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return false
	}
	raw, ok := secured.NetConn().(*tracked)
	return ok && raw.signer != nil && !bytes.Equal(raw.signer, p.credential.current().certificate.Leaf.AuthorityKeyId)
}

type protocol struct {
	roles []Role      // empty: anybody
	shown bool        // anybody who shows a certificate, whoever has signed it: it proves a key
	slim  bool        // what tracked keeps of a certificate is all that is asked for
	tls   *tls.Config // of all its connections, made by Serve: one each would take 2 kB for as long as the connection stands
	conns chan net.Conn
	addr  net.Addr
	once  sync.Once
	done  chan struct{} // closed with the listener
}

// nobody stands for certificates that are not kept.
var nobody = new(x509.Certificate)

const (
	handshakeTimeout = 10 * time.Second
	maxHandshakes    = 1024
)

// NewPort makes a port that shows credential.
func NewPort(credential *Credential, log *slog.Logger) *Port {
	return &Port{credential: credential, log: log, protocols: map[string]*protocol{}}
}

// Handle is the listener for one protocol, spoken by hosts of the given roles. Its connections are *tls.Conn with the handshake
// done and the peer's certificate checked. ConnPeer says whose it was; the certificate itself is not kept.
func (p *Port) Handle(name string, role Role, roles ...Role) net.Listener {
	l := p.handle(name, append(roles, role)...)
	l.slim = true
	return l
}

// handleShown is handle for a protocol of hosts that have nothing but a key.
func (p *Port) handleShown(name string) net.Listener {
	l := p.handle(name)
	l.shown = true
	return l
}

func (p *Port) handle(name string, roles ...Role) *protocol {
	if p.protocols[name] != nil {
		panic("trust: two handlers of " + name)
	}
	l := &protocol{roles: roles, conns: make(chan net.Conn), addr: protocolAddr(name), done: make(chan struct{})}
	p.protocols[name] = l
	return l
}

// Serve accepts connections until ctx ends. It closes l and the listeners of all protocols; connections that were handed over are
// their handlers' to close.
func (p *Port) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var g errgroup.Group
	g.SetLimit(maxHandshakes)
	config := &tls.Config{GetConfigForClient: p.configFor}
	for name, h := range p.protocols {
		h.tls = p.config(name, h)
	}
	defer func() {
		for _, h := range p.protocols {
			h.Close()
		}
		_ = g.Wait() // they return no errors
	}()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			p.log.Error("cannot accept a peer's connection; going on", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case err != nil:
			return fmt.Errorf("peer port %s: %w", l.Addr(), err)
		}
		g.Go(func() error {
			raw := p.credential.conns.track(conn)
			p.greet(ctx, raw, tls.Server(raw, config))
			return nil
		})
	}
}

// greet shakes hands and passes the connection on to its protocol's handler.
func (p *Port) greet(ctx context.Context, raw *tracked, conn *tls.Conn) {
	limit, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(limit); err != nil {
		conn.Close()
		if ctx.Err() == nil {
			p.log.Warn("a peer was turned away", "peer", conn.RemoteAddr(), "error", err)
		}
		return
	}
	session := conn.ConnectionState()
	h := p.protocols[session.NegotiatedProtocol]
	if h == nil { // who names no protocol at all gets past the negotiation
		conn.Close()
		return
	}
	if chain := session.PeerCertificates; len(chain) > 0 && !h.shown {
		who, err := identityOf(chain[0])
		if err != nil { // it has been checked
			conn.Close()
			return
		}
		raw.shows(who, chain[0])
		if h.slim {
			chain[0] = nobody // the chain is the connection's own
		}
	}
	select {
	case h.conns <- conn:
	case <-h.done:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
}

// configFor picks the one protocol to speak, and with it who may: a client that also names a protocol open to anybody gets that
// one and nothing else.
func (p *Port) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	for _, name := range hello.SupportedProtos {
		if h := p.protocols[name]; h != nil {
			return h.tls, nil
		}
	}
	return nil, fmt.Errorf("no protocol in common: the peer offers %q", slices.Clone(hello.SupportedProtos))
}

// config is for a protocol's connections. What it shows and believes is looked up anew for each.
func (p *Port) config(name string, h *protocol) *tls.Config {
	config := p.credential.peerTLS([]string{name}, h.roles...)
	switch {
	case h.shown:
		config.VerifyConnection = nil
	case len(h.roles) == 0:
		config.ClientAuth, config.VerifyConnection = tls.NoClientCert, nil
	}
	return config
}

// ConnPeer says who is at the other end of a connection that a Port has handed over.
func ConnPeer(conn net.Conn) (Identity, bool) {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return Identity{}, false
	}
	who, err := peerOf(secured)
	return who, err == nil
}

// Accept implements net.Listener.
func (h *protocol) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *protocol) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *protocol) Addr() net.Addr { return h.addr }

// protocolAddr is the "address" of a protocol: its name.
type protocolAddr string

func (protocolAddr) Network() string  { return "alpn" }
func (a protocolAddr) String() string { return string(a) }
