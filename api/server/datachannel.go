package server

import (
	"context"
	"net/http"
	"net/http/httputil"
	"strings"

	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// DataChannels are the sessions that clients hold over a WebSocket each. They come with a token of their own, signed or not.
type DataChannels interface {
	// Elsewhere is the other server that has what the request needs; empty: this one answers.
	Elsewhere(r *http.Request) (server string)
	// Serve runs a session and closes its channel. ctx ends when the server shuts down.
	Serve(ctx context.Context, conn *datachannel.Conn, session string)
}

// dataChannelPath is where data channels are opened: as on AWS, whose host for it is another one.
const dataChannelPath = "/v1/data-channel/"

// maxDataChannels bounds the connections of clients and, for those that are passed on, of other servers.
const maxDataChannels = 100

func isDataChannel(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, dataChannelPath) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// dataChannel opens a channel here, or has it opened by the server that has what it is about.
func (s *Server) dataChannel(x *exchange) {
	select {
	case s.channels <- struct{}{}:
		defer func() { <-s.channels }()
	default:
		x.plain(http.StatusServiceUnavailable, "ServiceUnavailable", "This server has as many data channels as it takes.")
		return
	}
	if s.cfg.Cluster != nil && !isForwarded(x.r) {
		if server := s.cfg.DataChannels.Elsewhere(x.r); server != "" {
			s.passChannel(x, server)
			return
		}
	}
	conn, err := datachannel.Accept(x.w, x.r)
	if err != nil {
		return // and the client has been told
	}
	s.cfg.DataChannels.Serve(s.leaving, conn, strings.TrimPrefix(x.r.URL.Path, dataChannelPath))
}

// passChannel has another server open the channel and carries its bytes.
func (s *Server) passChannel(x *exchange, server string) {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	proxy := httputil.ReverseProxy{
		Transport: toServer(func(r *http.Request) (*http.Response, error) {
			answer, _, err := s.cfg.Cluster.Send(r.Context(), server, r)
			return answer, err
		}),
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.Header.Set(clientHeader, x.r.RemoteAddr) },
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			s.log.Debug("pass a data channel on", "server", server, "error", err)
			x.plain(http.StatusServiceUnavailable, "ServiceUnavailable", "The server that has this cannot be reached just now. Please try again.")
		},
	}
	proxy.ServeHTTP(x.w, x.r.WithContext(ctx))
}

type toServer func(*http.Request) (*http.Response, error)

func (f toServer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
