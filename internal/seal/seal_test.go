package seal_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/seed-2f228079/neargate/internal/seal"
)

func sealer(t testing.TB, key byte, purpose string) *seal.Sealer {
	t.Helper()
	s, err := seal.New(bytes.Repeat([]byte{key}, seal.KeySize), purpose)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	s := sealer(t, 1, "page-token")
	sealed := s.SealString([]byte("last key"), []byte("ListTasks"))
	if got, err := sealer(t, 1, "page-token").OpenString(sealed, []byte("ListTasks")); err != nil || string(got) != "last key" {
		t.Fatalf("opened %q, %v", got, err)
	}
	if again := s.SealString([]byte("last key"), []byte("ListTasks")); again == sealed {
		t.Error("sealing twice gave the same")
	}
	for name, open := range map[string]func() ([]byte, error){
		"other key":     func() ([]byte, error) { return sealer(t, 2, "page-token").OpenString(sealed, []byte("ListTasks")) },
		"other purpose": func() ([]byte, error) { return sealer(t, 1, "registry").OpenString(sealed, []byte("ListTasks")) },
		"other context": func() ([]byte, error) { return s.OpenString(sealed, []byte("ListServices")) },
		"no context":    func() ([]byte, error) { return s.OpenString(sealed, nil) },
		"not base64":    func() ([]byte, error) { return s.OpenString(sealed+"!", []byte("ListTasks")) },
		"empty":         func() ([]byte, error) { return s.OpenString("", []byte("ListTasks")) },
	} {
		if got, err := open(); !errors.Is(err, seal.ErrInvalid) {
			t.Errorf("%s: opened %q, %v", name, got, err)
		}
	}
	raw := s.Seal([]byte("x"), nil)
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if _, err := s.Open(changed, nil); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
		if _, err := s.Open(raw[:i], nil); err == nil {
			t.Errorf("opened cut to %d bytes", i)
		}
	}
	if _, err := seal.New([]byte("short"), "x"); err == nil {
		t.Error("a short key was taken")
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, 1, "fuzz")
	f.Add(s.Seal([]byte("a"), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := s.Open(b, nil); err == nil && string(p) != "a" {
			t.Fatalf("opened %x", b)
		}
	})
}

func TestName(t *testing.T) {
	a, b := bytes.Repeat([]byte{1}, seal.KeySize), bytes.Repeat([]byte{2}, seal.KeySize)
	if seal.Name(a) != seal.Name(bytes.Clone(a)) || seal.Name(a) == seal.Name(b) || len(seal.Name(a)) != 32 {
		t.Errorf("%s and %s", seal.Name(a), seal.Name(b))
	}
	// It is stored: it must never change.
	if got := seal.Name(a); got != "1b4255ac2c78f17a0d31e43f1c91b137" {
		t.Error(got)
	}
}
