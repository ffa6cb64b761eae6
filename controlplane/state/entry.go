package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An entry is: format byte, number of transactions, then each transaction with its length before it. Numbers are uvarints,
// strings carry their length. There are no optional fields: a reader that does not know a format or guard must refuse the
// entry, because skipping a condition would apply what must not be applied.
const entryFormat = 1

const (
	opPut    = 1
	opDelete = 2
)

var errTruncated = errors.New("truncated")

// EncodeEntry joins transactions into one entry. They are applied in this order, each on its own conditions.
func EncodeEntry(txs []*Transaction) []byte {
	size := 1 + binary.MaxVarintLen64
	for _, tx := range txs {
		size += binary.MaxVarintLen64 + len(tx.Encode())
	}
	b := make([]byte, 0, size)
	b = append(b, entryFormat)
	b = binary.AppendUvarint(b, uint64(len(txs)))
	for _, tx := range txs {
		b = binary.AppendUvarint(b, uint64(len(tx.encoded)))
		b = append(b, tx.encoded...)
	}
	return b
}

// Encode is the transaction's part of an entry. It is made once: tx must not change afterwards.
func (tx *Transaction) Encode() []byte {
	if tx.encoded != nil {
		return tx.encoded
	}
	b := make([]byte, 0, tx.sizeHint())
	b = binary.AppendUvarint(b, uint64(len(tx.Guards)))
	for _, g := range tx.Guards {
		b = append(b, byte(g.Kind))
		b = appendString(b, g.Space)
		b = appendString(b, string(g.Key))
		if g.Kind == GuardRange {
			b = appendString(b, string(g.End))
		}
		if g.Kind != GuardAbsent {
			b = binary.AppendUvarint(b, uint64(g.Revision))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(tx.Ops)))
	for _, op := range tx.Ops {
		kind := byte(opPut)
		if op.Delete {
			kind = opDelete
		}
		b = append(b, kind)
		b = appendString(b, op.Table)
		b = appendString(b, string(op.Key))
		if !op.Delete {
			b = binary.AppendUvarint(b, uint64(len(op.Value)))
			b = append(b, op.Value...)
		}
		b = binary.AppendUvarint(b, uint64(len(op.Touched)))
		for _, e := range op.Touched {
			b = appendString(b, e.Space)
			b = appendString(b, string(e.Key))
		}
	}
	tx.encoded = b
	return b
}

// sizeHint is no less than what tx takes encoded as long as no text in it is longer than 16 KiB, and a few bytes an item more: grown by appending, an
// encoded transaction would cost thrice its size.
func (tx *Transaction) sizeHint() int {
	const number, length = 4, 2 // bytes of most revisions and counts, and of most lengths
	n := 2 * number
	for i := range tx.Guards {
		g := &tx.Guards[i]
		n += 1 + 3*length + number + len(g.Space) + len(g.Key) + len(g.End)
	}
	for i := range tx.Ops {
		op := &tx.Ops[i]
		n += 1 + 2*length + 2*number + len(op.Table) + len(op.Key) + len(op.Value)
		for _, e := range op.Touched {
			n += 2*length + len(e.Space) + len(e.Key)
		}
	}
	return n
}

// DecodeEntry undoes EncodeEntry. Values are copies: they do not keep the entry alive.
func DecodeEntry(b []byte) ([]*Transaction, error) {
	d := decoder{b: b}
	if format := d.byte(); d.err == nil && format != entryFormat {
		return nil, fmt.Errorf("%w: entry of format %d, known is %d", ErrUnknownFormat, format, entryFormat)
	}
	n := d.count(1)
	txs := make([]*Transaction, 0, n)
	d.names = map[string]string{}
	for range n {
		part := decoder{b: d.bytes(), names: d.names}
		if d.err != nil {
			break
		}
		tx := part.transaction()
		if part.err != nil {
			return nil, fmt.Errorf("transaction %d: %w", len(txs), part.err)
		}
		txs = append(txs, tx)
	}
	d.finish()
	if d.err != nil {
		return nil, fmt.Errorf("entry: %w", d.err)
	}
	return txs, nil
}

func (d *decoder) transaction() *Transaction {
	tx := &Transaction{}
	if n := d.count(3); n > 0 {
		tx.Guards = make([]Guard, n)
	}
	for i := range tx.Guards {
		g := &tx.Guards[i]
		g.Kind, g.Space, g.Key = GuardKind(d.byte()), d.name(), Key(d.string())
		switch g.Kind {
		case GuardRevision:
			g.Revision = Revision(d.uvarint())
		case GuardAbsent:
		case GuardRange:
			g.End, g.Revision = Key(d.string()), Revision(d.uvarint())
		default:
			d.fail(fmt.Errorf("guard of unknown kind %d", g.Kind))
		}
	}
	if n := d.count(4); n > 0 {
		tx.Ops = make([]Op, n)
	}
	for i := range tx.Ops {
		op := &tx.Ops[i]
		kind := d.byte()
		op.Table, op.Key = d.name(), Key(d.string())
		switch kind {
		case opPut:
			op.Value = append([]byte{}, d.bytes()...)
		case opDelete:
			op.Delete = true
		default:
			d.fail(fmt.Errorf("operation of unknown kind %d", kind))
		}
		if n := d.count(2); n > 0 {
			op.Touched = make([]IndexEntry, n)
		}
		for j := range op.Touched {
			op.Touched[j] = IndexEntry{Space: d.name(), Key: Key(d.string())}
		}
	}
	d.finish()
	return tx
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads what append… wrote. After the first error it returns zero values.
type decoder struct {
	b     []byte
	err   error
	names map[string]string // of tables and spaces that the entry has named: they are few and come again and again
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err, d.b = err, nil
	}
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errTruncated)
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errTruncated)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many items of at least size bytes follow: never more than there is room for, so that a broken entry
// cannot ask for memory without bounds.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail(errTruncated)
		return 0
	}
	return int(n)
}

// bytes is a part of the input, not a copy.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail(errTruncated)
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) string() string { return string(d.bytes()) }

// name is a string that is likely to have been there before.
func (d *decoder) name() string {
	b := d.bytes()
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	s := string(b)
	d.names[s] = s
	return s
}

func (d *decoder) finish() {
	if len(d.b) > 0 {
		d.fail(fmt.Errorf("%d bytes too many", len(d.b)))
	}
}
