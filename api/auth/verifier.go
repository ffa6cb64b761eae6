// Package auth finds out who calls: AWS Signature Version 4, in headers or in the query, and HTTP Basic with an access
// key and its secret. It also decides what a caller may do, by the policies that Principals has of it (IAM).
//
// It reads no body and writes no answer: the caller parses the signature, learns the service from its scope, reads the
// body within that service's limit and then asks Verify. A failure says what is wrong; In gives it the code and status of
// the caller's protocol.
//
// Invariants: signatures, secrets and session tokens are compared in constant time; whatever a signature does not cover
// is not believed (Host and every x-amz- header must be signed).
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// MaxSkew is how far a client's clock may be off, either way.
const MaxSkew = 15 * time.Minute

// Payload hashes that are not the hash of the body.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	streamingPrefix = "STREAMING-"
)

// Verifier checks who signed a request. It is safe for concurrent use.
type Verifier struct {
	credentials Credentials
	clock       clock.Clock
	keys        signingKeys
}

// NewVerifier checks against the credentials that c knows.
func NewVerifier(c Credentials, clk clock.Clock) *Verifier {
	return &Verifier{credentials: c, clock: clk}
}

// Verify checks that sig, which Parse found in r, is right for r with this body. A failure is a *Failure, unless the
// credentials could not be looked up.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, sig *Signature, body []byte) (api.Identity, error) {
	if err := v.checkTime(sig); err != nil {
		return api.Identity{}, err
	}
	c, err := v.credential(ctx, sig.AccessKeyID, sig.SessionToken)
	if err != nil {
		return api.Identity{}, err
	}
	if err := sig.checkCoverage(r); err != nil {
		return api.Identity{}, err
	}
	var most [1024]byte // of what is signed, mostly: it need not be allocated then
	canonical, err := appendCanonicalRequest(most[:0], r, sig, body)
	if err != nil {
		return api.Identity{}, err
	}
	id := keyID{c.SecretAccessKey, sig.day, sig.Region, sig.Service}
	key, cached := v.keys.get(id)
	if !cached {
		key = &signingKey{key: deriveKey(id)}
	}
	if !key.made(sig, sha256.Sum256(canonical)) {
		return api.Identity{}, fail(mismatch, "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if !cached {
		v.keys.put(id, key) // only what a client has proven to need is worth keeping
	}
	return c.Identity, nil
}

// Basic checks HTTP Basic authentication: user is the access key id, password the secret access key. ok is false when r
// does not carry any.
func (v *Verifier) Basic(ctx context.Context, r *http.Request) (who api.Identity, ok bool, err error) {
	user, password, ok := r.BasicAuth()
	if !ok {
		return api.Identity{}, false, nil
	}
	c, err := v.credential(ctx, user, r.Header.Get("X-Amz-Security-Token"))
	if err != nil {
		return api.Identity{}, true, err
	}
	if subtle.ConstantTimeCompare([]byte(password), []byte(c.SecretAccessKey)) != 1 {
		return api.Identity{}, true, fail(unknownKey, "The access key id or the secret access key is not right.")
	}
	return c.Identity, true, nil
}

func (v *Verifier) credential(ctx context.Context, accessKeyID, token string) (Credential, error) {
	c, ok, err := v.credentials.Lookup(ctx, accessKeyID, token)
	switch {
	case err != nil:
		return Credential{}, err
	case !ok || subtle.ConstantTimeCompare([]byte(token), []byte(c.SessionToken)) != 1:
		return Credential{}, fail(unknownKey, "The security token included in the request is invalid.")
	case !c.Expires.IsZero() && !v.clock.Now().Before(c.Expires):
		return Credential{}, fail(expiredToken, "The security token included in the request is expired")
	}
	return c, nil
}

func (v *Verifier) checkTime(sig *Signature) error {
	now, signed := v.clock.Now().UTC(), sig.Time
	if edge := now.Add(MaxSkew); signed.After(edge) {
		return fail(skewed, "Signature not yet current: %s is still later than %s (%s + 15 min.)",
			signed.Format(timeFormat), edge.Format(timeFormat), now.Format(timeFormat))
	}
	life := MaxSkew
	if sig.Presigned {
		life = sig.Expires
	}
	if edge := now.Add(-life); signed.Before(edge) {
		return fail(skewed, "Signature expired: %s is now earlier than %s (%s - %d min.)",
			signed.Format(timeFormat), edge.Format(timeFormat), now.Format(timeFormat), life/time.Minute)
	}
	return nil
}

// appendPayloadHash appends the last line of the canonical request: what the client says the body's hash is, if it is that.
func appendPayloadHash(b []byte, r *http.Request, body []byte) ([]byte, error) {
	sum := sha256.Sum256(body)
	begin := len(b)
	b = hex.AppendEncode(b, sum[:])
	switch said := r.Header.Get("X-Amz-Content-Sha256"); {
	case said == "", said == string(b[begin:]):
		return b, nil
	case said == unsignedPayload: // the client's choice, covered by its signature
		return append(b[:begin], said...), nil
	case strings.HasPrefix(said, streamingPrefix): // S3's and event streams' alone: each chunk has a signature of its own
		return nil, fail(mismatch, "The payload hash %s is not supported: send the body in one piece, with its hash or UNSIGNED-PAYLOAD.", said)
	}
	return nil, fail(mismatch, "The provided 'x-amz-content-sha256' header does not match what was computed.")
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// keyID is what a signing key is derived from. It holds the secret, so that a changed secret finds no old key.
type keyID struct{ secret, day, region, service string }

func deriveKey(id keyID) []byte {
	return mac(mac(mac(mac([]byte("AWS4"+id.secret), id.day), id.region), id.service), terminator)
}

// signingKey is a derived key, with what was made of it for earlier signatures.
type signingKey struct {
	key  []byte
	used sync.Pool // of *keyed
}

type keyed struct {
	hash.Hash
	text, sum []byte
}

// made says whether sig is this key's, of a canonical request with this hash.
func (k *signingKey) made(sig *Signature, canonical [sha256.Size]byte) bool {
	h, ok := k.used.Get().(*keyed)
	if !ok {
		h = &keyed{Hash: hmac.New(sha256.New, k.key)}
	}
	defer k.used.Put(h)
	h.Reset()
	h.text = appendStringToSign(h.text[:0], sig, canonical)
	h.Write(h.text)
	h.sum = h.Sum(h.sum[:0])
	return hmac.Equal(h.sum, sig.value)
}

// signingKeys caches derived keys: four of the five hashes of a verification.
type signingKeys struct {
	mu   sync.RWMutex
	keys map[keyID]*signingKey
}

// maxSigningKeys bounds the cache. A key lives for a day, so forgetting all of them when it is full costs next to nothing.
const maxSigningKeys = 4096

func (k *signingKeys) get(id keyID) (*signingKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.keys[id]
	return key, ok
}

func (k *signingKeys) put(id keyID, key *signingKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= maxSigningKeys {
		k.keys = map[keyID]*signingKey{}
	}
	k.keys[id] = key
}
