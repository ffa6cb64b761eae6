package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// socketPair is two ends of a TCP connection whose buffers are small.
func socketPair(t *testing.T) (*socket, *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	c.(*net.TCPConn).SetWriteBuffer(8 << 10)
	s, err := newSocket(c.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	return s, peer.(*net.TCPConn)
}

// TestSocketWritesAll: what the kernel takes piece by piece arrives whole and in order.
func TestSocketWritesAll(t *testing.T) {
	s, peer := socketPair(t)
	a, b, c := bytes.Repeat([]byte("a"), 3<<20+1), bytes.Repeat([]byte("b"), 2<<20+3), bytes.Repeat([]byte("c"), 1<<20+7)
	go func() {
		defer s.CloseWrite()
		for _, pieces := range [][3][]byte{{a, b, c}, {nil, b, nil}, {a, nil, c}, {nil, nil, nil}} {
			if n, err := s.writeAll(pieces[0], pieces[1], pieces[2]); n != len(pieces[0])+len(pieces[1])+len(pieces[2]) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
		if n, err := s.Write(b); n != len(b) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}()
	got, err := io.ReadAll(peer)
	if want := bytes.Join([][]byte{a, b, c, b, a, c, b}, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(want), err)
	}
}

func TestSocketErrors(t *testing.T) {
	s, peer := socketPair(t)
	s.SetReadDeadline(time.Now().Add(-time.Second))
	if n, err := s.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
		t.Errorf("past the deadline: %d, %v", n, err)
	}
	s.SetDeadline(time.Time{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		if n, err := s.Write(make([]byte, 64<<20)); n == 0 || n == 64<<20 || !isTimeout(err) {
			t.Errorf("to nobody who reads: %d, %v", n, err)
		}
	}()
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	s.SetDeadline(time.Now()) // some of it is on its way
	<-written
	s.SetDeadline(time.Time{})
	peer.SetLinger(0)
	peer.Close()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("after a reset: %d, %v", n, err)
	}
	s.Close()
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("wrote to a closed connection")
	}
	s, peer = socketPair(t)
	peer.CloseWrite()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}
