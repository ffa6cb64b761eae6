package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/registry/signature"
)

// signFlags say whose images tasks may run.
type signFlags struct {
	keys, roots  string
	repositories []string
}

func (f *signFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.keys, "verify-keys", "", "file of public keys (PEM): tasks only get images that cosign has signed with one of them")
	fl.StringVar(&f.roots, "verify-roots", "", "file of root certificates (PEM): tasks only get images that notation has signed with a certificate of theirs, or cosign with one of the keys")
	fl.StringSliceVar(&f.repositories, "verify-repositories", nil, "names of the repositories, with wildcards (*), whose images need a signature (default: all)")
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
