// Package blobtest is for tests that look at, or spoil, what a blob store has on its disk.
package blobtest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/pack"
)

// Rot changes a byte in the middle of a blob, in its file and wherever it is in the log of small ones.
func Rot(dir string, d blob.Digest) error {
	algorithm, text, _ := strings.Cut(string(d), ":")
	key, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	done := false
	name := filepath.Join(dir, algorithm, text[:2], text)
	if b, err := os.ReadFile(name); err == nil {
		if err := flip(name, int64(len(b)/2)); err != nil {
			return err
		}
		done = true
	}
	segments, err := filepath.Glob(filepath.Join(dir, "small", "*.seg"))
	if err != nil {
		return err
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for from := 0; ; {
			i := bytes.Index(b[from:], key)
			if i < 0 {
				break
			}
			from += i + len(key)
			if err := flip(name, int64(from)); err != nil { // the first byte of the record's data
				return err
			}
			done = true
		}
	}
	if !done {
		return fmt.Errorf("%s is not in %s", d, dir)
	}
	return nil
}

func flip(name string, offset int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] ^= 1
	if err == nil {
		_, err = f.WriteAt(b[:], offset)
	}
	return errors.Join(err, f.Close())
}

// Digests lists what the store in dir has of sha256, sorted, also while another process uses it.
func Digests(t testing.TB, dir string) (list []blob.Digest) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "sha256"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, blob.Digest("sha256:"+e.Name()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	small := t.TempDir()
	if err := os.CopyFS(filepath.Join(small, "copy"), os.DirFS(filepath.Join(dir, "small"))); err != nil {
		t.Fatal(err)
	}
	log, err := pack.Open(filepath.Join(small, "copy"), pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for first := range 256 {
		for _, key := range log.Keys(32, byte(first)) {
			list = append(list, blob.Digest("sha256:"+hex.EncodeToString(key)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
