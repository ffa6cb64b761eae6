// Package datachannel is the protocol of AWS Session Manager's data channel, which the clients of ECS Exec speak: the AWS CLI with its
// session-manager-plugin, and ours. A channel is a WebSocket. Its first message is text, JSON with the token that opens it; all
// others are binary, in the form of Message. Both ends number what they stream, acknowledge what they have taken, and send again
// what was not acknowledged in time.
//
// It knows no ECS and no token: it carries payloads. It is the one room of the WebSocket library.
//
// Invariants: a stream's messages are handed out once each and in order; what was not taken is not acknowledged, so that the other
// end keeps it; at most a window of messages waits for acknowledgement, and Send waits meanwhile: nobody who is slow fills memory.
package datachannel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-2f228079/neargate/internal/id"
)

// Types of messages.
const (
	InputStream      = "input_stream_data"  // from the client
	OutputStream     = "output_stream_data" // to the client
	Acknowledge      = "acknowledge"
	ChannelClosed    = "channel_closed"
	StartPublication = "start_publication"
	PausePublication = "pause_publication"
)

// PayloadType says what a message of a stream carries.
type PayloadType uint32

// Payload types.
const (
	Output            PayloadType = 1 // bytes of the terminal, either way
	Error             PayloadType = 2
	Size              PayloadType = 3 // of the terminal, JSON
	Parameter         PayloadType = 4
	HandshakeRequest  PayloadType = 5
	HandshakeResponse PayloadType = 6
	HandshakeComplete PayloadType = 7
	Flag              PayloadType = 10 // a big-endian number: one of the flags below
	StdErr            PayloadType = 11
	ExitCode          PayloadType = 12 // in decimal
)

// TerminateSession is the flag by which a client ends the session.
const TerminateSession = 2

// Flags of a message's header.
const (
	SYN = 1 // the first message of its stream
	FIN = 2 // the last one: of the input, its end
)

// Message is one binary message. A header of fixed size comes first, all numbers big-endian:
//
//	header length 4, type 32 (padded with spaces), schema version 4, created 8 (milliseconds of the epoch), sequence number 8,
//	flags 8, id 16 (its halves swapped), SHA-256 of the payload 32, payload type 4 | payload length 4, payload
//
// The header's length counts what stands before the payload's.
type Message struct {
	Type        string
	Created     int64 // milliseconds
	Sequence    int64
	Flags       uint64
	ID          id.Binary
	PayloadType PayloadType
	Payload     []byte
}

// headerLength is what this version writes; a longer one is read, and what it adds is skipped.
const (
	typeLength    = 32
	schemaVersion = 1
	headerLength  = 4 + typeLength + 4 + 8 + 8 + 8 + 16 + sha256.Size + 4
)

// MaxPayload is what one message may carry. Clients in use send 1 KiB at most.
const MaxPayload = 16 << 10

// MaxMessage is the size of the largest message taken; the first, with its token, included.
const MaxMessage = 64 << 10

// Marshal writes m in its wire form.
func (m *Message) Marshal() []byte {
	b := make([]byte, 0, headerLength+4+len(m.Payload))
	b = binary.BigEndian.AppendUint32(b, headerLength)
	b = append(b, fmt.Sprintf("%-*s", typeLength, m.Type)[:typeLength]...)
	b = binary.BigEndian.AppendUint32(b, schemaVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Sequence))
	b = binary.BigEndian.AppendUint64(b, m.Flags)
	b = append(append(b, m.ID[8:]...), m.ID[:8]...)
	digest := sha256.Sum256(m.Payload)
	b = append(b, digest[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(m.PayloadType))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Payload)))
	return append(b, m.Payload...)
}

// Parse reads a message. Its payload is part of b.
func Parse(b []byte) (*Message, error) {
	if len(b) < headerLength+4 {
		return nil, fmt.Errorf("a message of %d bytes is shorter than its header", len(b))
	}
	header := int64(binary.BigEndian.Uint32(b))
	if header < headerLength || header+4 > int64(len(b)) {
		return nil, fmt.Errorf("a header of %d bytes in a message of %d", header, len(b))
	}
	m := &Message{Type: strings.Trim(string(b[4:4+typeLength]), " \x00")}
	at := b[4+typeLength:]
	number := func(size int) []byte {
		field := at[:size]
		at = at[size:]
		return field
	}
	version := binary.BigEndian.Uint32(number(4))
	m.Created = int64(binary.BigEndian.Uint64(number(8)))
	m.Sequence = int64(binary.BigEndian.Uint64(number(8)))
	m.Flags = binary.BigEndian.Uint64(number(8))
	copy(m.ID[8:], number(8))
	copy(m.ID[:8], number(8))
	digest := number(sha256.Size)
	m.PayloadType = PayloadType(binary.BigEndian.Uint32(number(4)))
	m.Payload = b[header+4:]
	sum := sha256.Sum256(m.Payload)
	length := int64(binary.BigEndian.Uint32(b[header:]))
	switch {
	case version != schemaVersion:
		return nil, fmt.Errorf("schema version %d of a message is unknown", version)
	case m.Type == "":
		return nil, errors.New("a message without a type")
	case m.Sequence < 0:
		return nil, fmt.Errorf("sequence number %d is negative", m.Sequence)
	case length != int64(len(m.Payload)):
		return nil, fmt.Errorf("a payload of %d bytes where its length says %d", len(m.Payload), length)
	case len(m.Payload) > MaxPayload:
		return nil, fmt.Errorf("a payload of %d bytes is larger than the %d that are taken", len(m.Payload), MaxPayload)
	case len(m.Payload) > 0 && !bytes.Equal(digest, sum[:]):
		return nil, errors.New("a payload is not the one that its digest is of")
	}
	return m, nil
}
