package trust

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// The protocols of admission on the peer port, by ALPN. Each connection carries one request and one answer: a length, a proof
// (zeros when renewing: there the certificate speaks), and JSON.
const (
	protocolJoin  = "neargate-join/1"
	protocolRenew = "neargate-renew/1"
)

// request asks for a certificate.
type request struct {
	// Token is the id of the token that the proof rests on; empty: the bootstrap secret. It is no secret itself.
	Token string `json:"token,omitempty"`
	Role  Role   `json:"role"`
	// Request is a PKCS #10 request, for the key that it carries: nothing else in it counts.
	Request []byte `json:"request"`
	// ID and Address are those of a server's data directory and peer port.
	ID      string `json:"id,omitempty"`
	Address string `json:"address,omitempty"`
	// Speaks is the version of a server's build (internal/version).
	Speaks uint32 `json:"speaks,omitempty"`
}

// answer is the certificate, or a word why there is none.
type answer struct {
	Certificate []byte   `json:"certificate,omitempty"`
	Authorities [][]byte `json:"authorities,omitempty"`
	// Founding is what a server gets instead: with it, it certifies itself.
	Founding *Founding `json:"founding,omitempty"`
	Refusal  refusal   `json:"refusal,omitempty"`
}

// refusal is a fixed word, so that an answer which proves nothing can put no text of its own before people.
type refusal string

const (
	refusedToken   refusal = "token"   // the proof is wrong, or there is no such token
	refusedRole    refusal = "role"    // this token admits no such role
	refusedRequest refusal = "request" // not understood
	refusedUsed    refusal = "used"    // another host has used this token
	refusedAddress refusal = "address" // another server has this address
	refusedVersion refusal = "version" // the server's build is too old for the cluster
	refusedLater   refusal = "later"   // nobody leads just now
)

// maxMessage bounds what is read from somebody unknown.
const maxMessage = 16 << 10

func writeMessage(w io.Writer, proof, body []byte) error {
	if len(proof) == 0 {
		proof = make([]byte, proofSize)
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	_, err := w.Write(append(append(frame, proof...), body...))
	return err
}

func readMessage(r io.Reader, into any) (proof, body []byte, err error) {
	head := make([]byte, 4+proofSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n > maxMessage {
		return nil, nil, fmt.Errorf("a message of %d bytes, more than %d", n, maxMessage)
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, nil, err
	}
	return head[4:], body, json.Unmarshal(body, into)
}
