package controlplane

import (
	"bytes"
	"crypto/sha256"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// clientTokenLife is how long a token is remembered; ECS says 24 hours.
const clientTokenLife = 24 * time.Hour

// Request identifies one call of an operation that carries a client token. A token is good for one request: the same one
// again gets the first one's answer, another one is refused.
type Request struct {
	Scope     Scope
	Operation string // "ecs:RunTask"
	Token     string // empty: the request is not idempotent
	Hash      []byte // HashRequest of the input without its token
}

// HashRequest hashes an SDK input: equal requests have equal hashes, whatever the protocol they came in.
func HashRequest(in any) []byte {
	sum := sha256.Sum256([]byte(EncodeShape(in)))
	return sum[:]
}

// Earlier looks for a call with the same token. seen says that there was one, same that it was this request; result is what
// Remember was given then.
func (r Request) Earlier(tx *state.Tx, now time.Time) (result []string, seen, same bool) {
	if r.Token == "" {
		return nil, false, false
	}
	t, ok := ClientTokens.Get(tx, r.Scope.Key(r.Operation, r.Token))
	if !ok || !now.Before(t.Expires.AsTime()) {
		return nil, false, false
	}
	return t.Result, true, bytes.Equal(t.RequestHash, r.Hash)
}

// Remember stores, in the transaction that does the work, what the answer is rendered from when the request comes again.
func (r Request) Remember(tx *state.Tx, now time.Time, result ...string) {
	if r.Token == "" {
		return
	}
	ClientTokens.Put(tx, &ClientToken{
		Account: r.Scope.Account, Region: r.Scope.Region, Operation: r.Operation, Token: r.Token,
		RequestHash: r.Hash, Result: result, Expires: timestamppb.New(now.Add(clientTokenLife)),
	})
}
