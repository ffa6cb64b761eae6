package main

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// newRoot makes root credentials, as their file has them, in AWS's form: 20 and 40 characters.
func newRoot() []byte {
	var random [40]byte
	rand.Read(random[:]) // never fails
	return []byte("AKIA" + base32.StdEncoding.EncodeToString(random[:10]) + " " + base64.StdEncoding.EncodeToString(random[10:]) + "\n")
}

// keptRoot reads the root credentials of a server that was given none, or makes them and prints them: this once.
func keptRoot(keys string, out io.Writer) (id, secret string, err error) {
	name := filepath.Join(keys, trust.RootFile)
	text, err := os.ReadFile(name)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		text = newRoot()
		err = datadir.WriteFile(name, text)
	}
	if err != nil {
		return "", "", fmt.Errorf("root credentials: %w", err)
	}
	f := strings.Fields(string(text))
	if len(f) != 2 {
		return "", "", fmt.Errorf("root credentials: %s is damaged: it does not hold an access key id and a secret", name)
	}
	if made {
		showRoot(name, f[0], f[1], out)
	}
	return f[0], f[1], nil
}

// showRoot prints root credentials that were made just now and are kept in a file.
func showRoot(name, id, secret string, out io.Writer) {
	fmt.Fprintf(out, "The root credentials of this cluster, shown this once and kept in %s:\n\n  export AWS_ACCESS_KEY_ID=%s\n  export AWS_SECRET_ACCESS_KEY=%s\n\n", name, id, secret)
}
