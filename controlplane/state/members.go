package state

import (
	"errors"
	"fmt"
	"time"
)

// Member is a server of the group, as the leader sees it.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	// LastContact is when the server last answered the leader; zero if it has not since the leader began to lead.
	LastContact time.Time `json:"last_contact"`
	// LastIndex is the end of its log, and Revision what it has applied, when it last answered. Lag is by how many entries its log
	// is behind the leader's. Where the log is an etcd's nobody tells the leader how far others are, and all three are zero.
	LastIndex uint64   `json:"last_index"`
	Revision  Revision `json:"revision"`
	Lag       uint64   `json:"lag"`
	// Healthy: it answers, is not far behind and can write. Reason says why not.
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason,omitempty"`
}

// AddressInUseError refuses an address that another member has. Who knows that the other one is gone removes it first.
type AddressInUseError struct{ Address, ID string }

func (e *AddressInUseError) Error() string {
	return fmt.Sprintf("state: address %s is that of member %s", e.Address, e.ID)
}

// ErrNotMember: there is no such server in the group.
var ErrNotMember = errors.New("state: not a member of the group")

// ErrLastVoter: the group would be left without a voter.
var ErrLastVoter = errors.New("state: it is the only voter of the group")
