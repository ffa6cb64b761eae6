package blob_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// TestPutBothWays: with names and without, a blob arrives, a rotten one is replaced, and nothing is left beside them.
func TestPutBothWays(t *testing.T) {
	for _, named := range []bool{false, true} {
		dir := t.TempDir()
		s, err := blob.Open(dir, blob.Options{Small: -1})
		if err != nil {
			t.Fatal(err)
		}
		if named {
			s.Named()
		} else if runtime.GOOS == "linux" && !s.Unnamed() {
			t.Log("the file system of the test knows no unnamed files")
		}
		d := blob.Sum([]byte("content"))
		file := filepath.Join(dir, "sha256", string(d)[7:9], string(d)[7:])
		for range 3 {
			lease, info, err := s.Put(t.Context(), d, strings.NewReader("content"))
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
			if got, err := s.ReadAll(d, 100); string(got) != "content" || err != nil || info.Size != 7 {
				t.Errorf("%q, %v, %+v", got, err, info)
			}
			if err := os.WriteFile(file, []byte("rotten"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := s.Put(t.Context(), d, strings.NewReader("something else")); !errors.Is(err, blob.ErrMismatch) {
			t.Errorf("%v", err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "partial")); len(left) != 0 || err != nil {
			t.Errorf("named %v: left %v, %v", named, left, err)
		}
	}
}
