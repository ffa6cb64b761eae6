package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/signature"
)

// signFlags say whose images tasks may run, and with what images are signed here.
type signFlags struct {
	keys, roots  string
	repositories []string
	profiles     string
}

func (f *signFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.keys, "verify-keys", "", "file of public keys (PEM): tasks only get images that cosign has signed with one of them")
	fl.StringVar(&f.roots, "verify-roots", "", "file of root certificates (PEM): tasks only get images that notation has signed with a certificate of theirs, or cosign with one of the keys")
	fl.StringSliceVar(&f.repositories, "verify-repositories", nil, "names of the repositories, with wildcards (*), whose images need a signature (default: all)")
	fl.StringVar(&f.profiles, "signing-profiles", "", "folder with the keys of signing profiles, which ECR's signing configuration names: ACCOUNT/NAME.key (PKCS #8) and ACCOUNT/NAME.crt (its certificates, the signer's first), as PEM")
}

// signatures is nil when none are asked for.
func (f *signFlags) signatures() (*registry.Signatures, error) {
	if f.keys == "" && f.roots == "" {
		if f.repositories != nil {
			return nil, errors.New("--verify-repositories needs --verify-keys or --verify-roots")
		}
		return nil, nil
	}
	var texts [2][]byte
	for i, file := range []string{f.keys, f.roots} {
		if file == "" {
			continue
		}
		var err error
		if texts[i], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--verify-%s: %w", []string{"keys", "roots"}[i], err)
		}
	}
	p, err := signature.New(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("--verify-keys, --verify-roots: %w", err)
	}
	return &registry.Signatures{Policy: p, Repositories: f.repositories}, nil
}

// signer finds the keys of signing profiles, read whenever they are used so that they can be replaced; nil when there are none.
func (f *signFlags) signer() (func(account, profile string) (*signature.Signer, error), error) {
	if f.profiles == "" {
		return nil, nil
	}
	read := func(account, profile string) (*signature.Signer, error) {
		var texts [2][]byte
		for i, ending := range []string{".key", ".crt"} {
			var err error
			texts[i], err = os.ReadFile(filepath.Join(f.profiles, filepath.Base(account), filepath.Base(profile)+ending))
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("--signing-profiles has no file %s/%s", account, profile+ending)
			}
			if err != nil {
				return nil, err
			}
		}
		return signature.NewSigner(texts[0], texts[1])
	}
	keys, err := filepath.Glob(filepath.Join(f.profiles, "*", "*.key"))
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("there is no ACCOUNT/NAME.key in %s", f.profiles)
	}
	if err != nil {
		return nil, fmt.Errorf("--signing-profiles: %w", err)
	}
	for _, key := range keys {
		if _, err := read(filepath.Base(filepath.Dir(key)), strings.TrimSuffix(filepath.Base(key), ".key")); err != nil {
			return nil, fmt.Errorf("--signing-profiles: %s: %w", key, err)
		}
	}
	return read, nil
}
