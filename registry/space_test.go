package registry_test

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// TestFullDisk fills the disk that holds the blobs: the push is told so, what was there stays, and once there is room again it
// goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	blobs, err := blob.Open(dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *registry.Config) { c.Blobs = blobs })
	b.blobs = blobs
	b.create("users")
	b.pushImage("users", "v1", strings.Repeat("x", 300<<10))
	big := strings.Repeat("y", 900<<10)
	d := blob.Sum([]byte(big))
	a := b.want(507, "POST", "/v2/users/blobs/uploads/?digest="+string(d), big)
	if want := `{"errors":[{"code":"UNKNOWN","message":"The registry has no space left on its disk."}]}`; a.body != want {
		t.Errorf("%s", a.body)
	}
	at := b.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	b.want(507, "PATCH", at, big)
	b.want(404, "HEAD", "/v2/users/blobs/"+string(d), nil)
	b.want(200, "GET", "/v2/users/blobs/"+string(blob.Sum([]byte(strings.Repeat("x", 300<<10)))), nil)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(b.want(204, "GET", at, nil).Header.Get("Range"), "-")
	b.want(201, "PUT", at+"?digest="+string(d), big[atoi(t, last)+1:])
	if got := b.want(200, "GET", "/v2/users/blobs/"+string(d), nil).body; got != big {
		t.Error("the upload that went on has other content")
	}
}

// TestReserve: pushes end before the disk is full, which the state's log may be on, and go on as soon as there is room.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	blobs, err := blob.Open(dir, blob.Options{Reserve: 1 << 30}) // a twentieth, of so small a disk
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *registry.Config) { c.Blobs = blobs })
	b.blobs = blobs
	b.create("users")
	b.pushImage("users", "v1", strings.Repeat("x", 512<<10)) // which is in it twice
	b.pushBlob("users", strings.Repeat("y", 950<<10))        // into the reserve
	at := b.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	a := b.want(507, "PATCH", at, "a byte")
	if want := `{"errors":[{"code":"UNKNOWN","message":"The registry has no space left on its disk."}]}`; a.body != want {
		t.Errorf("%s", a.body)
	}
	b.want(507, "POST", "/v2/users/blobs/uploads/?digest="+string(blob.Sum([]byte("small"))), "small")
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	b.want(202, "DELETE", "/v2/users/manifests/v1", nil) // which takes no room
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	b.want(202, "PATCH", at, "a byte")
	b.want(201, "PUT", at+"?digest="+string(blob.Sum([]byte("a byte"))), nil)
	b.pushImage("users", "v3", "small")
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
