package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

// Founding is what makes several servers one cluster: who they are, and the secrets that all of them hold. It goes over no wire but
// inside a session of which both ends have proven to know a secret, and is kept in the folder of keys.
type Founding struct {
	// Members are those of the beginning, sorted by id; a server that came later has none. Who belongs to the cluster now is in its
	// state.
	Members []Founder `json:"members"`
	// Authority is the certificate authority, as its file has it: every server admits hosts.
	Authority []byte `json:"authority"`
	Sealing   []byte `json:"sealing"`        // the sealing key; the data directory keeps it
	Root      []byte `json:"root,omitempty"` // the root credentials' file; empty: they come from the environment
	Secret    []byte `json:"secret"`         // what was made of the bootstrap secret
}

// Founder is a first member of a cluster.
type Founder struct {
	ID      string `json:"id"`
	Address string `json:"address"` // of its peer port, as the others reach it
	Key     string `json:"key"`     // KeyID of its host key, by which it is known until it has a certificate
}

// foundingFile holds a Founding. With it the server belongs to the cluster: the authority, by which everything begins, is made of it
// afterwards, and again at the next start if a crash came between. What may be removed later, the bootstrap secret, is written before.
const foundingFile = "founding.json"

// RootFile keeps root credentials that no environment gave.
const RootFile = "root-credentials"

// LoadFounding reads the founding kept in a folder of keys; nil: there is none.
func LoadFounding(keys string) (*Founding, error) {
	name := filepath.Join(keys, foundingFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f := &Founding{}
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// The authority may be another one by now: its own file knows.
	switch authority, err := os.ReadFile(filepath.Join(keys, authorityFile)); {
	case err == nil:
		if err := f.follow(keys, authority); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, f.write(keys, authorityFile, f.Authority)
}

// follow has the founding hold the authority that there is now, and no other: who comes late is handed it, and one that has had its time is
// gone from the disk.
func (f *Founding) follow(keys string, authority []byte) error {
	if bytes.Equal(f.Authority, authority) {
		return nil
	}
	f.Authority = authority
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return f.write(keys, foundingFile, text)
}

// keep makes f this server's, for good.
func (f *Founding) keep(keys string) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		text []byte
	}{{secretFile, f.Secret}, {RootFile, f.Root}, {foundingFile, text}, {authorityFile, f.Authority}} {
		if err := f.write(keys, file.name, file.text); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file, unless it is that already.
func (f *Founding) write(keys, name string, want []byte) error {
	name = filepath.Join(keys, name)
	if is, err := os.ReadFile(name); len(want) == 0 || err == nil && bytes.Equal(is, want) {
		return nil
	}
	if err := datadir.WriteFile(name, want); err != nil {
		return fmt.Errorf("keep what the cluster was founded with: %w", err)
	}
	return nil
}

// check refuses what is no founding: it comes from a file or from another server.
func (f *Founding) check() error {
	switch _, err := parseRing(f.Authority); {
	case err != nil:
		return fmt.Errorf("authority: %w", err)
	case len(f.Sealing) == 0:
		return errors.New("it is not complete")
	}
	return nil
}

// member is the member with an id; nil: there is none.
func (f *Founding) member(id string) *Founder {
	i := slices.IndexFunc(f.Members, func(m Founder) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &f.Members[i]
}

// Gather is the founding for a server that comes later: what this one holds.
func Gather(keys string, sealing []byte) (*Founding, error) {
	f := &Founding{Sealing: sealing}
	for name, into := range map[string]*[]byte{authorityFile: &f.Authority, RootFile: &f.Root, secretFile: &f.Secret} {
		text, err := os.ReadFile(filepath.Join(keys, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("gather what servers hold: %w", err)
		}
		*into = text
	}
	return f, f.check()
}
