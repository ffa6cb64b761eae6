package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
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

// EncodeEntry joins transactions into one entry. They are applied in this order, each on its own conditions. There is room for a few bytes more behind
// it.
func EncodeEntry(txs []*Transaction) []byte {
	size := 1 + binary.MaxVarintLen64
	for _, tx := range txs {
		size += binary.MaxVarintLen32 + tx.Size()
	}
	b := make([]byte, 0, size)
	b = append(b, entryFormat)
	b = binary.AppendUvarint(b, uint64(len(txs)))
	for _, tx := range txs {
		b = binary.AppendUvarint(b, uint64(tx.Size()))
		b = tx.append(b)
	}
	return b
}

// append encodes tx. Size counts what it writes.
func (tx *Transaction) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(tx.Guards)))
	for i := range tx.Guards {
		g := &tx.Guards[i]
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
	for i := range tx.Ops {
		op := &tx.Ops[i]
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
			b = binary.AppendUvarint(b, uint64(len(e.Key)+len(e.Own)))
			b = append(b, e.Key...)
			b = append(b, e.Own...)
		}
	}
	return b
}

// Size is how many bytes tx takes in an entry. It is found out once: tx must not change afterwards.
func (tx *Transaction) Size() int {
	if tx.size > 0 {
		return tx.size
	}
	n := sizeOf(uint64(len(tx.Guards))) + sizeOf(uint64(len(tx.Ops)))
	for i := range tx.Guards {
		g := &tx.Guards[i]
		n += 1 + sizeOfString(len(g.Space)) + sizeOfString(len(g.Key))
		if g.Kind == GuardRange {
			n += sizeOfString(len(g.End))
		}
		if g.Kind != GuardAbsent {
			n += sizeOf(uint64(g.Revision))
		}
	}
	for i := range tx.Ops {
		op := &tx.Ops[i]
		n += 1 + sizeOfString(len(op.Table)) + sizeOfString(len(op.Key)) + sizeOf(uint64(len(op.Touched)))
		if !op.Delete {
			n += sizeOfString(len(op.Value))
		}
		for _, e := range op.Touched {
			n += sizeOfString(len(e.Space)) + sizeOfString(len(e.Key)+len(e.Own))
		}
	}
	tx.size = n
	return n
}

// sizeOf is how many bytes a number takes, sizeOfString how many a text of n bytes does.
func sizeOf(v uint64) int    { return (bits.Len64(v|1) + 6) / 7 }
func sizeOfString(n int) int { return sizeOf(uint64(n)) + n }

// DecodeEntry undoes EncodeEntry. What it returns are parts of b, which must not be changed as long as they are used.
func DecodeEntry(b []byte) ([]*Transaction, error) {
	return new(decoded).entry(b)
}

// decoded is where the parts of an entry are laid down: lists that the next entry uses again.
type decoded struct {
	txs     []Transaction
	order   []*Transaction
	guards  []Guard
	ops     []Op
	touched []IndexEntry
}

// keptDecoded is so much of a list that is kept for the next entry, in items.
const keptDecoded = 4096

// release lets go of the entry, when nothing of it is used any more.
func (e *decoded) release() {
	e.txs, e.order, e.guards, e.ops, e.touched = emptied(e.txs), emptied(e.order), emptied(e.guards), emptied(e.ops), emptied(e.touched)
}

func emptied[T any](s []T) []T {
	if cap(s) > keptDecoded {
		return nil
	}
	clear(s)
	return s[:0]
}

// next is n more items of *s, all zero; nil if n is 0. Those before may stay behind in a former array.
func next[T any](s *[]T, n int) []T {
	if n == 0 {
		return nil
	}
	if cap(*s)-len(*s) < n {
		*s = make([]T, 0, max(2*cap(*s), n, 16))
	}
	at := len(*s)
	*s = (*s)[:at+n]
	return (*s)[at : at+n : at+n]
}

func (e *decoded) entry(b []byte) ([]*Transaction, error) {
	d := decoder{b: b}
	if format := d.byte(); d.err == nil && format != entryFormat {
		return nil, fmt.Errorf("%w: entry of format %d, known is %d", ErrUnknownFormat, format, entryFormat)
	}
	txs := next(&e.order, d.count(1))
	for i := range txs {
		part := decoder{b: d.bytes()}
		if d.err != nil {
			break
		}
		txs[i] = &next(&e.txs, 1)[0]
		e.transaction(&part, txs[i])
		if part.err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i, part.err)
		}
	}
	d.finish()
	if d.err != nil {
		return nil, fmt.Errorf("entry: %w", d.err)
	}
	return txs, nil
}

func (e *decoded) transaction(d *decoder, tx *Transaction) {
	tx.size = len(d.b)
	tx.Guards = next(&e.guards, d.count(3))
	for i := range tx.Guards {
		g := &tx.Guards[i]
		g.Kind, g.Space, g.Key = GuardKind(d.byte()), d.text(), Key(d.text())
		switch g.Kind {
		case GuardRevision:
			g.Revision = Revision(d.uvarint())
		case GuardAbsent:
		case GuardRange:
			g.End, g.Revision = Key(d.text()), Revision(d.uvarint())
		default:
			d.fail(fmt.Errorf("guard of unknown kind %d", g.Kind))
		}
	}
	tx.Ops = next(&e.ops, d.count(4))
	for i := range tx.Ops {
		op := &tx.Ops[i]
		kind := d.byte()
		op.Table, op.Key = d.text(), Key(d.text())
		switch kind {
		case opPut:
			op.Value = d.bytes()
		case opDelete:
			op.Delete = true
		default:
			d.fail(fmt.Errorf("operation of unknown kind %d", kind))
		}
		op.Touched = next(&e.touched, d.count(2))
		for j := range op.Touched {
			op.Touched[j] = IndexEntry{Space: d.text(), Key: Key(d.text())}
		}
	}
	d.finish()
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads what append… wrote. After the first error it returns zero values.
type decoder struct {
	b   []byte
	err error
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

// text is a string that is a part of the input.
func (d *decoder) text() string { return textOf(d.bytes()) }

func (d *decoder) finish() {
	if len(d.b) > 0 {
		d.fail(fmt.Errorf("%d bytes too many", len(d.b)))
	}
}
