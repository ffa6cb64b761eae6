package proxy

import "net/http"

// tunnel passes the switch of protocols on and then carries bytes both ways until either side ends or both are silent
// for the idle timeout.
func (x *exchange) tunnel(u *upstream) {
	c, early, err := x.c.hijack()
	if err != nil {
		x.fail(http.StatusBadGateway)
		return
	}
	defer c.Close()
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
	head = appendField(head, "Upgrade", u.response.upgrade)
	for _, f := range u.response.header {
		head = appendField(head, f.name, f.value)
	}
	if _, err := c.Write(append(head, "\r\n"...)); err != nil {
		return
	}
	touch := func() error {
		u.touch(x.idle)
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyTouching(c, u.br, touch)
		c.CloseWrite()
	}()
	// The client's silence alone does not end the tunnel: only the target's side has a deadline, which both directions move.
	copyTouching(u, early, touch)
	u.CloseWrite()
	<-done
}
