//go:build linux && cgo

package native

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// layerError is a layer that will never unpack: hostile, broken or too large.
type layerError struct{ text string }

func (e *layerError) Error() string { return e.text }

// unpackResult is what the unpacking process says on its standard output.
type unpackResult struct {
	DiffID string
	Error  string
	Full   bool // the disk is; that may pass
}

// unpack decompresses and unpacks a layer into dir, in a process that sees nothing but that folder: changed root, namespaces of
// its own, few capabilities. It answers the digest of the uncompressed tar.
// It stops when the disk would be left with less than keep bytes.
func unpack(ctx context.Context, dir string, blob io.Reader, maxBytes, maxEntries, keep int64) (diffID string, err error) {
	c := exec.CommandContext(ctx, ownProgram)
	c.Args = []string{unpackName, dir, strconv.FormatInt(maxBytes, 10), strconv.FormatInt(maxEntries, 10), strconv.FormatInt(keep, 10)}
	c.Env = []string{"GOMAXPROCS=2"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	var out, messages bytes.Buffer
	c.Stdout, c.Stderr = &out, &messages
	in, err := c.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", fmt.Errorf("start unpacker: %w", err)
	}
	_, readErr := io.Copy(in, blob)
	if errors.Is(readErr, unix.EPIPE) { // it gave up early and will say why
		readErr = nil
	}
	if readErr != nil {
		c.Process.Kill() // a truncated stream must not look like a whole one
	}
	in.Close()
	waitErr := c.Wait()
	if err := errors.Join(ctx.Err(), readErr); err != nil {
		return "", err
	}
	var r unpackResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return "", fmt.Errorf("unpacker: %w: %s", errors.Join(waitErr, err), messages.String())
	}
	if r.Full {
		return "", errors.New(r.Error)
	}
	if r.Error != "" {
		return "", &layerError{r.Error}
	}
	return r.DiffID, waitErr
}

// runUnpack is the unpacking process's main.
func runUnpack(args []string) int {
	r := unpackResult{}
	var err error
	if r.DiffID, err = unpackHere(args, os.Stdin); err != nil {
		r.Error, r.Full = err.Error(), errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

func unpackHere(args []string, in io.Reader) (string, error) {
	if len(args) != 4 {
		return "", errors.New("arguments: folder, bytes, entries, bytes to keep free")
	}
	var limits [3]int64
	for i := range limits {
		var err error
		if limits[i], err = strconv.ParseInt(args[1+i], 10, 64); err != nil {
			return "", err
		}
	}
	maxBytes, maxEntries, keep := limits[0], limits[1], limits[2]
	if err := confine(args[0]); err != nil {
		return "", err
	}
	stream, err := decompress(bufio.NewReaderSize(in, 64<<10))
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	// The tar's own overhead (a header and padding an entry) is not charged to the files.
	limited := &limitedReader{Reader: stream, left: maxBytes + 4096*maxEntries, keep: keep}
	content := io.TeeReader(limited, hash)
	gate := &entryGate{bytes: maxBytes, entries: maxEntries, metadata: maxLayerMetadata}
	if _, err := archive.Apply(context.Background(), "/", content, archive.WithFilter(gate.admit),
		archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, content); err != nil { // padding after the tar's end belongs to the digest
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// confine leaves this process nothing but the folder. Threads started later do not matter: the goroutine stays on this one.
func confine(dir string) error {
	runtime.LockOSThread()
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	unix.Umask(0)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	// SYS_ADMIN: overlayfs's opaque marker is a trusted attribute.
	var keep uint32
	for _, c := range []uint{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP, unix.CAP_SYS_ADMIN} {
		keep |= 1 << (c % 32)
	}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}} // all of them are among the first 32
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// decompress recognises gzip and zstd by their first bytes; everything else is taken for a plain tar.
func decompress(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	}
	return in, nil
}

// entryGate looks at every entry before it is made.
type entryGate struct{ bytes, entries, metadata int64 }

// maxLayerMetadata bounds names and attributes: what is remembered of entries until the end.
const maxLayerMetadata = 256 << 20

func (g *entryGate) admit(h *tar.Header) (bool, error) {
	if g.entries--; g.entries < 0 {
		return false, errors.New("layer has too many entries")
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse { // Size counts a sparse file's holes too
		if g.bytes -= h.Size; g.bytes < 0 {
			return false, errors.New("layer is too large")
		}
	}
	g.metadata -= int64(len(h.Name) + len(h.Linkname))
	for k, v := range h.PAXRecords {
		g.metadata -= int64(len(k) + len(v))
	}
	if g.metadata < 0 {
		return false, errors.New("layer has too large names and attributes")
	}
	if slices.Contains(strings.Split(h.Name, "/"), "..") {
		return false, fmt.Errorf("entry %q leaves the layer", h.Name)
	}
	if h.Typeflag == tar.TypeLink && slices.Contains(strings.Split(h.Linkname, "/"), "..") {
		return false, fmt.Errorf("hard link %q to %q leaves the layer", h.Name, h.Linkname)
	}
	for key := range h.PAXRecords {
		// Overlayfs would take them for its own.
		if strings.HasPrefix(key, "SCHILY.xattr.trusted.") {
			return false, fmt.Errorf("entry %q has the attribute %q", h.Name, strings.TrimPrefix(key, "SCHILY.xattr."))
		}
	}
	// Containers get a /dev of their own, and the device rules of their cgroup would refuse any other node.
	return h.Typeflag != tar.TypeBlock && h.Typeflag != tar.TypeChar, nil
}

// lookEvery is how much may be unpacked between two looks at the disk.
const lookEvery = 64 << 20

// limitedReader bounds what comes, and ends where the disk would be left with less than keep.
type limitedReader struct {
	io.Reader
	left, keep int64
	unseen     int64 // until the next look
}

func (l *limitedReader) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, errors.New("layer is too large")
	}
	if l.unseen -= int64(n); l.unseen < 0 && l.keep > 0 {
		l.unseen = lookEvery
		var st unix.Statfs_t
		if err := unix.Statfs("/", &st); err != nil {
			return 0, err
		}
		if free := int64(st.Bavail) * st.Bsize; free < l.keep {
			return 0, fmt.Errorf("%w: of the host's disk %d MiB are left, %d MiB are kept free", unix.ENOSPC, free>>20, l.keep>>20)
		}
	}
	return n, err
}
