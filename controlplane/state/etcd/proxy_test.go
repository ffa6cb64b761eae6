package etcd_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
)

// link is a way to etcd that can be cut.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	whole bool
	conns map[net.Conn]bool
}

// newLink makes one, and o go by it.
func newLink(t testing.TB, server *etcdtest.Server, o *etcd.Options) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: strings.TrimPrefix(server.Endpoint, "http://"), whole: true, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { listener.Close(); l.cut() })
	go l.serve()
	o.Endpoints = []string{"http://" + listener.Addr().String()}
	return l
}

func (l *link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil || !l.add(near, far) {
			near.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				io.Copy(way[0], way[1])
				near.Close()
				far.Close()
			}()
		}
	}
}

func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if !l.whole {
			c.Close()
			continue
		}
		l.conns[c] = true
	}
	return l.whole
}

// cut ends all connections, and new ones at once, until heal.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = false
	for c := range l.conns {
		c.Close()
		delete(l.conns, c)
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = true
}
