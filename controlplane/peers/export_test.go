package peers

import (
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// CloseIdle has the next request to any server need a new connection.
func (p *Peers) CloseIdle() {
	p.forwards.CloseIdleConnections()
	p.relays.CloseIdleConnections()
}

// Agreed is the generation and the phase that the state has.
func Agreed(r state.Reader) (uint64, trust.Phase) {
	a, _ := authorities.Get(r, authorityKey)
	return a.GetGeneration(), trust.Phase(a.GetPhase())
}

// Agree writes what somebody else's servers have agreed upon.
func Agree(tx *state.Tx, ring trust.Ring) {
	authorities.Put(tx, &Authorities{Generation: ring.Generation, Phase: string(ring.Phase), Certificates: ring.Authorities})
}

// AgreedIDs are the authorities that the state has.
func AgreedIDs(r state.Reader) []string {
	a, _ := authorities.Get(r, authorityKey)
	return ringOf(a).IDs()
}
