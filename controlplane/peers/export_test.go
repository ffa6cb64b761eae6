package peers

// CloseIdle has the next request to any server need a new connection.
func (p *Peers) CloseIdle() {
	p.forwards.CloseIdleConnections()
	p.relays.CloseIdleConnections()
}
