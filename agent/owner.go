package agent

import (
	"net/netip"
	"sync"
)

// owners says whose task has an address, from before its containers start until it is removed.
type owners struct {
	mu        sync.RWMutex
	byAddress map[netip.Addr]owner
}

type owner struct{ task, account, region string }

func (o *owners) set(address string, who owner) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return // network mode host or none
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byAddress == nil {
		o.byAddress = map[netip.Addr]owner{}
	}
	o.byAddress[a] = who
}

// task is whose address it is; empty: nobody's.
func (o *owners) task(address netip.Addr) string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.byAddress[address].task
}

func (o *owners) remove(task string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for a, who := range o.byAddress {
		if who.task == task {
			delete(o.byAddress, a)
		}
	}
}

// Owner is the account and region of the task that has the address on this host; ok is false when no task has it.
func (a *Agent) Owner(address netip.Addr) (account, region string, ok bool) {
	a.owners.mu.RLock()
	defer a.owners.mu.RUnlock()
	who, ok := a.owners.byAddress[address]
	return who.account, who.region, ok
}
