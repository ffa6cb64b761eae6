package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net"

	"github.com/miekg/dns"
)

// quickConn answers the usual questions where they are read, from records that are packed already: one question for an address, over
// udp, in one of our zones. All others go on to the server's parser.
type quickConn struct {
	*net.UDPConn
	server *Server
	out    [quickMax]byte
}

// quickMax holds the largest quick answer: header, question, eight IPv6 addresses or an SOA, and OPT.
const quickMax = 12 + 259 + 1024 + 11

// ReadFrom returns the next packet that is not answered here. One goroutine reads.
func (c *quickConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return n, nil, err
		}
		view := c.server.table.Load().view(from.Addr().Unmap(), c.server.owner)
		answer := view.quick(c.out[:0], b[:n])
		if answer == nil {
			return n, net.UDPAddrFromAddrPort(from), nil
		}
		c.WriteToUDPAddrPort(answer, from) // lost answers are asked for again
	}
}

// quick appends the answer to the packet q to out; nil: it is not for this path.
func (v view) quick(out, q []byte) []byte {
	const flagsMask = 0xfe00 // QR, opcode, AA, TC: none in a query
	if len(q) < 12+5 || binary.BigEndian.Uint16(q[2:])&flagsMask != 0 || binary.BigEndian.Uint16(q[4:]) != 1 || binary.BigEndian.Uint32(q[6:]) != 0 {
		return nil
	}
	var text [256]byte
	name, end, ok := readName(text[:0], q, 12)
	if !ok || len(q) < end+4 || binary.BigEndian.Uint16(q[end+2:]) != dns.ClassINET {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[end:])
	question := q[12 : end+4]
	extra := binary.BigEndian.Uint16(q[10:])
	if kind != dns.TypeA && kind != dns.TypeAAAA || extra > 1 || !plainOPT(q[end+4:], extra == 1) {
		return nil
	}
	z := v.zoneOf(name)
	if z == nil {
		return nil
	}
	types, exists := z.names[string(name)]
	s := types[kind]
	if s != nil && s.wire == nil || s == nil && types[dns.TypeCNAME] != nil {
		return nil
	}

	flags := uint16(1<<15 | 1<<10 | 1<<7)            // QR, AA, RA
	flags |= binary.BigEndian.Uint16(q[2:]) & 0x0110 // RD, CD
	if !exists {
		flags |= dns.RcodeNameError
	}
	out = append(out, q[0], q[1])
	out = binary.BigEndian.AppendUint16(out, flags)
	out = append(out, 0, 1, 0, 0, 0, 0, 0, byte(extra))
	out = append(out, question...)
	if s == nil {
		out[9] = 1 // one record of authority
		out = append(out, z.soaWire...)
	} else {
		n := s.pick()
		out[7] = byte(n)
		out = s.appendWire(out, n)
	}
	if extra == 1 { // OPT: 1232 bytes, version 0, no options
		out = append(out, 0, 0, byte(dns.TypeOPT), 1232>>8, 1232&0xff, 0, 0, 0, 0, 0, 0)
	}
	if extra == 0 && len(out) > dns.MinMsgSize {
		return nil // to be truncated
	}
	return out
}

// readName appends the name at off in lower case, with a dot after each label, and says where it ends. Names that would need
// escapes are left to the parser.
func readName(text, q []byte, off int) (name []byte, end int, ok bool) {
	for {
		if off >= len(q) {
			return nil, 0, false
		}
		n := int(q[off])
		off++
		if n == 0 {
			return text, off, len(text) > 0
		}
		if n > 63 || off+n > len(q) || len(text)+n+1 > 255 {
			return nil, 0, false
		}
		for _, c := range q[off : off+n] {
			switch {
			case c >= 'A' && c <= 'Z':
				c += 'a' - 'A'
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return nil, 0, false
			}
			text = append(text, c)
		}
		text = append(text, '.')
		off += n
	}
}

// plainOPT says whether rest is an OPT record of version 0 with at least 512 bytes and nothing after it, or, if none is wanted,
// nothing at all.
func plainOPT(rest []byte, want bool) bool {
	if !want {
		return len(rest) == 0
	}
	return len(rest) >= 11 && rest[0] == 0 && binary.BigEndian.Uint16(rest[1:]) == dns.TypeOPT && binary.BigEndian.Uint16(rest[3:]) >= 1232 &&
		rest[5] == 0 && rest[6] == 0 && len(rest) == 11+int(binary.BigEndian.Uint16(rest[9:]))
}

// zoneOf is zone for a name of plain labels, without making a string.
func (v view) zoneOf(name []byte) *zone {
	for i := 0; i < len(name); i++ {
		if i == 0 || name[i-1] == '.' {
			if z := v[string(name[i:])]; z != nil {
				return z
			}
		}
	}
	return nil
}

// pick is how many records an answer has.
func (s *set) pick() int {
	if s.policy == "weighted" {
		return 1
	}
	return min(len(s.wire), maxAnswers)
}

// appendWire appends n records chosen at random, in random order.
func (s *set) appendWire(out []byte, n int) []byte {
	if len(s.wire) == 1 {
		return append(out, s.wire[0]...)
	}
	var chosen [maxAnswers]int
	for i := range n {
	again:
		chosen[i] = rand.IntN(len(s.wire))
		for _, c := range chosen[:i] {
			if c == chosen[i] {
				goto again
			}
		}
		out = append(out, s.wire[chosen[i]]...)
	}
	return out
}

// packed is rr as it stands alone; nil if it cannot be.
func packed(rr dns.RR) []byte {
	b := make([]byte, dns.Len(rr)+16)
	n, err := dns.PackRR(rr, b, 0, nil, false)
	if err != nil {
		return nil
	}
	return b[:n:n]
}

// answerWire is rr with a pointer to the question's name for its own.
func answerWire(rr dns.RR) []byte {
	b := packed(rr)
	_, off, err := dns.UnpackDomainName(b, 0)
	if err != nil {
		return nil
	}
	return append([]byte{0xc0, 12}, b[off:]...)
}
