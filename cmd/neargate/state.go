package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/seal"
)

// engine keeps the state.
type engine interface {
	state.Engine
	peers.Group
	Run(ctx context.Context) error
	// Health says why nothing can be written here, even while somebody leads; nil: it can.
	Health(ctx context.Context) error
}

// unwritable says to clients why a change was refused that may be tried again, as far as an operator has to do something about it; "" otherwise.
func unwritable(err error) string {
	var disk *state.DiskError
	var readOnly *state.ReadOnlyError
	switch {
	case errors.As(err, &disk) && errors.Is(err, syscall.ENOSPC):
		return "The disk of the server that leads is full: nothing is written until there is room."
	case errors.As(err, &disk):
		return "The disk of the server that leads fails: nothing is written until it is well."
	case errors.As(err, &readOnly):
		return "Nothing is written just now: " + readOnly.Reason + "."
	}
	return ""
}

// tooLarge says that a transaction was refused for what it holds.
func tooLarge(err error) bool {
	var limit *state.LimitError
	return errors.As(err, &limit)
}

// stateFlags say where the state is kept. The zero value is the data directory.
type stateFlags struct {
	engine, prefix string
	etcd           etcd.Connection
}

func (f *stateFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.engine, "state", "raft", "where the state is kept: raft (in the data directory) or etcd (one that exists already)")
	fl.StringSliceVar(&f.etcd.Endpoints, "etcd-endpoints", nil, "URLs of etcd's members, or host:port (TLS if one of the files below is given)")
	fl.StringVar(&f.prefix, "etcd-prefix", "/neargate", "what the keys in etcd begin with; installations that share an etcd have one each")
	fl.StringVar(&f.etcd.CA, "etcd-ca", "", "certificates (PEM) of the authority of etcd's servers (default the system's)")
	fl.StringVar(&f.etcd.Cert, "etcd-cert", "", "certificate (PEM) by which etcd knows this server")
	fl.StringVar(&f.etcd.Key, "etcd-key", "", "its key (PEM)")
	fl.StringVar(&f.etcd.User, "etcd-user", "", "user of etcd; the password is $NEARGATE_ETCD_PASSWORD")
}

// stateHelp goes into the long help of the commands that have these flags.
const stateHelp = `
With --state etcd everything is kept below --etcd-prefix of an existing etcd (3.4 or newer) instead of the data directory, which still holds
keys, blobs and what runs on this host. The prefix belongs to the data directory's sealing key (DIR/keys/sealing): keep both.`

// check refuses flags that do not go together.
func (f stateFlags) check() error {
	given := map[string]bool{"--etcd-endpoints": len(f.etcd.Endpoints) > 0, "--etcd-ca": f.etcd.CA != "", "--etcd-cert": f.etcd.Cert != "",
		"--etcd-key": f.etcd.Key != "", "--etcd-user": f.etcd.User != ""}
	switch f.engine {
	case "", "raft":
		for _, flag := range []string{"--etcd-endpoints", "--etcd-ca", "--etcd-cert", "--etcd-key", "--etcd-user"} {
			if given[flag] {
				return fmt.Errorf("%s goes with --state etcd", flag)
			}
		}
	case "etcd":
		if !given["--etcd-endpoints"] {
			return errors.New("--state etcd needs --etcd-endpoints")
		}
	default:
		return fmt.Errorf("--state is raft or etcd, not %q", f.engine)
	}
	return nil
}

// open opens the engine. A directory stays with the engine and the prefix that it began with: another one would be empty, and look as if
// all services were gone.
func (f stateFlags) open(dir *datadir.Dir, address string, deadAfter time.Duration, group func() raft.Options, log *slog.Logger) (engine, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	folder := dir.State("main")
	mark := filepath.Join(folder, "etcd") // holds the prefix, where the state is in etcd
	kept, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if f.engine != "etcd" {
		if kept != nil {
			return nil, fmt.Errorf("the state of %s is in etcd, below %s: start with --state etcd", dir.Path(), kept)
		}
		return raft.Open(group())
	}
	prefix := []byte("/" + strings.Trim(f.prefix, "/"))
	switch _, err := os.Stat(filepath.Join(folder, "log")); {
	case err == nil:
		return nil, fmt.Errorf("%s holds the state itself, in %s: start without --state etcd, or with another --data", dir.Path(), folder)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case kept != nil && !bytes.Equal(kept, prefix):
		return nil, fmt.Errorf("the state of %s is in etcd below %s, not %s: give --etcd-prefix %s, or another --data", dir.Path(), kept, prefix, kept)
	}
	f.etcd.Password = os.Getenv("NEARGATE_ETCD_PASSWORD")
	if f.etcd.User == "" {
		f.etcd.Password = ""
	}
	e, err := etcd.Open(context.Background(), etcd.Options{
		Connection: f.etcd, Prefix: f.prefix, ServerID: dir.ID(), Address: address, Installation: seal.Name(dir.SealingKey()),
		DeadAfter: deadAfter, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if kept == nil {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, errors.Join(err, e.Close())
		}
		if err := datadir.WriteFile(mark, prefix); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}
