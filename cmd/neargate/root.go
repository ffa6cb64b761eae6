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
)

// keptRoot reads the root credentials of a server that was given none, or makes them and prints them: this once.
func keptRoot(keys string, out io.Writer) (id, secret string, err error) {
	name := filepath.Join(keys, "root-credentials")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// In AWS's form: 20 and 40 characters.
		var random [40]byte
		rand.Read(random[:]) // never fails
		id = "AKIA" + base32.StdEncoding.EncodeToString(random[:10])
		secret = base64.StdEncoding.EncodeToString(random[10:])
		if err := datadir.WriteFile(name, []byte(id+" "+secret+"\n")); err != nil {
			return "", "", fmt.Errorf("root credentials: %w", err)
		}
		fmt.Fprintf(out, "The root credentials of this cluster, shown this once and kept in %s:\n\n  export AWS_ACCESS_KEY_ID=%s\n  export AWS_SECRET_ACCESS_KEY=%s\n\n", name, id, secret)
		return id, secret, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("root credentials: %w", err)
	}
	if f := strings.Fields(string(text)); len(f) == 2 {
		return f[0], f[1], nil
	}
	return "", "", fmt.Errorf("root credentials: %s is damaged: it does not hold an access key id and a secret", name)
}
