package server

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestListenersEndTogether: a server has several, and none waits for what another one has taken.
func TestListenersEndTogether(t *testing.T) {
	s, _, _ := newTestServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context, net.Listener) error{s.Run, s.RunTasks, s.Run} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- run(ctx, l) }()
	}
	cancel()
	for range 3 {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a listener does not end")
		}
	}
}
