package s3_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/storage/s3"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// TestContract: what blobs need of a store. The one of the tests keeps it, and so does one that others have written, if it is installed.
func TestContract(t *testing.T) {
	t.Run("test", func(t *testing.T) { contract(t, s3test.Start(t).URL) })
	t.Run("versitygw", func(t *testing.T) {
		_, address := s3test.Proxy(t, s3test.StartVersity(t))
		contract(t, address)
	})
}

func contract(t *testing.T, address string) {
	ctx, c := t.Context(), s3test.Client(t, address)
	put := func(key string, content []byte) error {
		sum := sha256.Sum256(content)
		return c.Put(ctx, key, s3.Part{Size: int64(len(content)), Sum: hex.EncodeToString(sum[:])}, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	}
	get := func(key string, from int64) string {
		t.Helper()
		body, o, err := c.Get(ctx, key, from)
		if err != nil {
			t.Fatalf("get %s: %v", key, err)
		}
		defer body.Close()
		text, err := io.ReadAll(body)
		if err != nil || o.Size != int64(len(text)) {
			t.Errorf("get %s: %d of %d bytes, %v", key, len(text), o.Size, err)
		}
		return string(text)
	}

	if _, err := c.Head(ctx, "p/none"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("head of what is not there: %v", err)
	}
	if _, _, err := c.Get(ctx, "p/none", 0); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("get of what is not there: %v", err)
	}
	if err := c.Delete(ctx, "p/none"); err != nil {
		t.Errorf("delete of what is not there: %v", err)
	}
	if err := put("p/empty", nil); err != nil || get("p/empty", 0) != "" {
		t.Errorf("an empty object: %v", err)
	}
	if err := put("p/one", []byte("one")); err != nil || get("p/one", 0) != "one" || get("p/one", 2) != "e" {
		t.Errorf("an object: %v", err)
	}
	if o, err := c.Head(ctx, "p/one"); err != nil || o.Size != 3 || time.Since(o.Modified).Abs() > time.Minute {
		t.Errorf("head: %+v, %v", o, err)
	}
	err := c.Put(ctx, "p/false", s3.Part{Size: 3, Sum: strings.Repeat("0", 64)}, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil })
	if e, ok := errors.AsType[*s3.Error](err); !ok || e.Status != http.StatusBadRequest {
		t.Errorf("content of another sum: %v", err)
	}
	if _, err := c.Head(ctx, "p/false"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}

	for _, content := range []string{"first", "second"} {
		if err := c.PutNew(ctx, "p/new", content); err != nil || get("p/new", 0) != "first" {
			t.Errorf("put of what is to be new: %v", err)
		}
	}
	o, err := c.Head(ctx, "p/one")
	if err == nil {
		err = errors.Join(c.Copy(ctx, o, "q/copy"), c.Copy(ctx, o, "p/one"))
	}
	if err != nil || get("q/copy", 0) != "one" || get("p/one", 0) != "one" {
		t.Errorf("copy: %v", err)
	}

	large := make([]byte, 11<<20)
	rand.Read(large)
	var parts []s3.Part
	for chunk := range slices.Chunk(large, 5<<20) {
		n, sum, err := s3.Sum(bytes.NewReader(chunk))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, s3.Part{Size: n, Sum: sum})
	}
	open := func(content []byte) func(offset, size int64) (io.ReadCloser, error) {
		return func(offset, size int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content[offset : offset+size])), nil
		}
	}
	if err := c.PutParts(ctx, "p/large", parts, open(large)); err != nil || get("p/large", 0) != string(large) || get("p/large", 6<<20) != string(large[6<<20:]) {
		t.Errorf("an object of parts: %v", err)
	}
	other := bytes.Clone(large)
	other[len(other)-1]++
	if err := c.PutParts(ctx, "p/spoiled", parts, open(other)); err == nil {
		t.Error("a part of another sum is taken")
	}
	if _, err := c.Head(ctx, "p/spoiled"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("an object whose parts did not come is there: %v", err)
	}
	// Parts that were on their way can outlive the end of their upload: one round may not be enough.
	for deadline := time.Now().Add(30 * time.Second); ; {
		n, err := c.AbortStale(ctx, "p/", time.Now().Add(time.Hour))
		if n == 0 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d uploads are left, %v", n, err)
			break
		}
	}

	for i := range 5 {
		if err := put(fmt.Sprintf("many/%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	page, more, err := c.List(ctx, "many/", "many/2")
	if err != nil || more || len(page) != 2 || page[0].Key != "many/3" || page[1].Key != "many/4" || page[0].Size != 1 || time.Since(page[0].Modified).Abs() > time.Minute {
		t.Errorf("list: %v, %v, %v", page, more, err)
	}
	if err := c.Delete(ctx, "many/3"); err != nil {
		t.Error(err)
	}
	if page, _, err := c.List(ctx, "many/", ""); err != nil || len(page) != 4 {
		t.Errorf("after a delete: %v, %v", page, err)
	}

	other2 := s3.New(s3.Config{Endpoint: c.Endpoint, Region: s3test.Region, Bucket: s3test.Bucket, Credentials: s3.FixedCredentials(s3test.AccessKeyID, "wrong", "")})
	_, err = other2.Head(ctx, "p/one")
	if e, ok := errors.AsType[*s3.Error](err); !ok || e.Status != http.StatusForbidden {
		t.Errorf("with a wrong secret: %v", err)
	}
}
