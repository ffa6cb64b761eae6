package id_test

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/seed-2f228079/neargate/internal/id"
)

func TestUUID(t *testing.T) {
	if got, want := id.UUID(bytes.NewReader(bytes.Repeat([]byte{0xab}, 16))), "abababab-abab-4bab-abab-abababababab"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := id.UUIDOf("a seed"); got != id.UUIDOf("a seed") || got == id.UUIDOf("another") || !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(got) {
		t.Error(got)
	}
	// It names what is kept: it must never change.
	if got, want := id.UUIDOf("a seed"), "8f44d509-e049-2ace-c4fc-109a030a5c75"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
