package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Connection says where etcd is and who we are to it.
type Connection struct {
	// Endpoints are URLs (https://10.0.0.1:2379), or host:port, which is TLS if CA or Cert is given.
	Endpoints []string
	// CA is a file with the certificates (PEM) of who may certify etcd; empty: the system's. Given, the connection is TLS.
	CA string
	// Cert and Key are files (PEM) by which etcd knows us, if it asks.
	Cert, Key string
	// User and Password are etcd's own; empty if it has no authentication.
	User, Password string
}

func (c Connection) check() error {
	secure, plain := c.CA != "" || c.Cert != "", false
	for _, endpoint := range c.Endpoints {
		scheme, _, found := strings.Cut(endpoint, "://")
		switch {
		case endpoint == "":
			return errors.New("etcd: an endpoint is empty")
		case found && scheme != "http" && scheme != "https":
			return fmt.Errorf("etcd: endpoint %s is not host:port, http:// or https://", endpoint)
		case scheme == "https":
			secure = true
		case found:
			plain = true
		}
	}
	switch {
	case len(c.Endpoints) == 0:
		return errors.New("etcd: no endpoints")
	case secure && plain:
		return errors.New("etcd: an http:// endpoint goes with neither TLS files nor https:// endpoints")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("etcd: a certificate and its key go together")
	case (c.User == "") != (c.Password == ""):
		return errors.New("etcd: a user and its password go together")
	}
	return nil
}

func (c Connection) secure() bool {
	return c.CA != "" || c.Cert != "" || strings.HasPrefix(c.Endpoints[0], "https://")
}

// tls is nil for plain connections.
func (c Connection) tls() (*tls.Config, error) {
	if !c.secure() {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd: there is no certificate in %s", c.CA)
		}
	}
	if c.Cert != "" {
		// Read at every handshake: certificates are renewed.
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			return &cert, err
		}
	}
	return config, nil
}

// connect makes a client; only a user's password is tried before it returns.
func (c Connection) connect(ctx context.Context) (*clientv3.Client, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	config, err := c.tls()
	if err != nil {
		return nil, err
	}
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = retryPause, 2*time.Second
	ways := &ways{last: map[string]net.Conn{}}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: config, Username: c.User, Password: c.Password,
		DialTimeout: requestTimeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: requestTimeout,
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: requestTimeout}),
			grpc.WithContextDialer(ways.dial), grpc.WithChainUnaryInterceptor(ways.ask),
		},
		MaxUnaryRetries: 8,            // within a quarter of a second; what has to be tried for longer is, by those who ask
		Logger:          zap.NewNop(), // what matters comes to us as errors
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: connect to %s: %w", strings.Join(c.Endpoints, ", "), err)
	}
	return client, nil
}

// ways are the connections to the members of etcd, one to each.
type ways struct {
	mu   sync.Mutex
	last map[string]net.Conn // to an address; may have ended
}

func (w *ways) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[c.RemoteAddr().String()] = c
	return c, nil
}

// ask has a request fail at once while there is no connection, instead of waiting for one as etcd's client does by default: then it is
// known that nothing was sent, and why.
//
// A connection on which an answer does not come is ended, and with it the watches and renewals on it, which go on elsewhere: a member that
// was stopped, or whose disk stands still, keeps its connections, and every third request would go there. The error is one after which
// etcd's client repeats what only reads; of a write it leaves open whether it was done.
func (w *ways) ask(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	patience := answerTimeout
	if strings.HasSuffix(method, "/Authenticate") { // which takes etcd long on purpose: it compares hashes of passwords
		patience = requestTimeout
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var member peer.Peer
	err := invoke(limit, method, request, reply, conn, append(opts, grpc.WaitForReady(false), grpc.Peer(&member))...)
	if err == nil || limit.Err() == nil || ctx.Err() != nil {
		return err
	}
	if member.Addr != nil {
		w.mu.Lock()
		silent := w.last[member.Addr.String()]
		w.mu.Unlock()
		if silent != nil {
			silent.Close()
		}
	}
	return status.Errorf(codes.Unavailable, "no answer within %v from the member of etcd at %v", patience, member.Addr)
}

// refused says whether err, of a transaction, means that etcd has not committed it and will not, and gives it the meaning it has for
// package state. Other errors leave it open.
func refused(err error) (error, bool) {
	switch rpctypes.Error(err) {
	case rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed,
		rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision:
		return fmt.Errorf("etcd: %w", err), true
	case rpctypes.ErrTooManyRequests:
		return fmt.Errorf("%w: etcd: %w", state.ErrNoLeader, err), true
	}
	// gRPC had no connection to send it by: this is what it says of the last attempt to make one.
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable && strings.Contains(s.Message(), "Error while dialing") {
		return fmt.Errorf("%w: etcd cannot be reached: %w", state.ErrNoLeader, err), true
	}
	return nil, false
}

// isNoSpace says whether err is etcd's quota alarm. Etcd answers so to what it refuses, but also to the write that used up the last of its
// room, which it has done.
func isNoSpace(err error) bool { return rpctypes.Error(err) == rpctypes.ErrNoSpace }

// noSpace is what that means: no writes until an operator has made room and disarmed the alarm. Deletes and reads etcd does take.
func noSpace() error {
	return &state.ReadOnlyError{Reason: "etcd's quota is used up (alarm NOSPACE): compact and defragment it or raise --quota-backend-bytes, then run etcdctl alarm disarm"}
}

// Health is what Barrier does not say: whether etcd takes writes.
func (e *Engine) Health(ctx context.Context) error {
	var last error
	for _, endpoint := range e.client.Endpoints() {
		s, err := e.client.Status(ctx, endpoint)
		if err != nil {
			last = fmt.Errorf("etcd: status of %s: %w", endpoint, err)
			continue
		}
		for _, alarm := range s.Errors {
			if strings.Contains(alarm, "NOSPACE") {
				return noSpace()
			}
			last = fmt.Errorf("etcd: %s: %s", endpoint, alarm)
		}
		if last == nil || len(s.Errors) == 0 {
			return nil
		}
	}
	return last
}
