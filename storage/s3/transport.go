package s3

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// stall is for how long nothing may come or go on a connection in use, and an answer may take to begin: bodies may take as long as they move.
	stall = 2 * time.Minute
)

// NewTransport reaches a store; config (nil: the default) says whose certificates are believed.
func NewTransport(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &moving{conn}, nil
		},
		ResponseHeaderTimeout: stall, MaxConnsPerHost: 64, MaxIdleConnsPerHost: 16, IdleConnTimeout: stall / 4,
		DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}
}

// moving is a connection that breaks when nothing moves for too long. A write counts for the read that waits meanwhile for the answer.
type moving struct{ net.Conn }

func (c *moving) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *moving) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
