package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// found has the server belong to a cluster: to the one it belongs to already, else to one that it joins by a token for servers, or forms
// with others by the bootstrap secret. Nil: it is the only server of its own.
func (f serverFlags) found(ctx context.Context, dir *datadir.Dir, l *net.TCPListener, out io.Writer, log *slog.Logger) (*trust.Founding, error) {
	c, err := trust.LoadFounding(dir.Keys())
	if err == nil && c == nil {
		c, err = f.begin(ctx, dir, l, out, log)
	}
	if err != nil || c == nil {
		return nil, err
	}
	return c, dir.SetSealingKey(c.Sealing)
}

// begin is the first start.
func (f serverFlags) begin(ctx context.Context, dir *datadir.Dir, l *net.TCPListener, out io.Writer, log *slog.Logger) (*trust.Founding, error) {
	others := slices.DeleteFunc(slices.Clone(f.join), func(a string) bool { return a == f.peerListen })
	switch {
	case trust.HasAuthority(dir.Keys()):
		if f.bootstrapExpect > 1 || len(others) > 0 {
			log.Warn("--bootstrap-expect and --join are ignored: this server has its cluster from its first start")
		}
		return nil, nil
	case len(others) == 0 && f.bootstrapExpect == 1:
		return nil, nil
	case len(others) == 0:
		return nil, errors.New("--bootstrap-expect is for several servers: name their peer addresses with --join")
	case f.joinToken == "":
		return nil, errors.New("servers find one another by a secret: give all the same --join-token")
	}
	secret, err := trust.NewSecret(f.joinToken)
	if err != nil {
		return nil, err
	}
	for _, a := range f.join {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("--join is a list of HOST:PORT: %w", err)
		}
	}
	address, err := publicName(l.Addr())
	if err != nil {
		return nil, err
	}
	if secret.For() == trust.Server {
		e := trust.Entry{Keys: dir.Keys(), ID: dir.ID(), Address: address, Servers: others, Secret: secret, Clock: clock.Real{}, Log: log}
		return e.Run(ctx)
	}
	switch {
	case trust.OneHosts(f.joinToken):
		return nil, trust.ErrWrongRole
	case f.bootstrapExpect == 1:
		return nil, errors.New("to form a cluster with the servers named by --join, say how many they are with --bootstrap-expect; " +
			"to join one that there is, give a token of `neargate operator token` as --join-token")
	case len(f.joinToken) < trust.WeakToken:
		log.Warn("the join token is short: take one of 16 random characters or more")
	}
	form := trust.Formation{
		Keys: dir.Keys(), ID: dir.ID(), Address: address, Expect: f.bootstrapExpect, Join: f.join, Secret: secret, Settings: f.settings(secret),
		Sealing: dir.SealingKey(), Clock: clock.Real{}, Log: log,
	}
	if os.Getenv("NEARGATE_ROOT_ACCESS_KEY_ID") == "" && !f.insecure {
		form.Root = newRoot()
	}
	fmt.Fprintf(out, "Forming a cluster of %d servers (peers at %s).\n", f.bootstrapExpect, address)
	c, founder, err := form.Run(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("form the cluster: %w", err)
	}
	if root := strings.Fields(string(c.Root)); founder && len(root) == 2 {
		showRoot(filepath.Join(dir.Keys(), trust.RootFile), root[0], root[1], out)
	}
	return c, nil
}

// settings are what all servers have to be told alike.
func (f serverFlags) settings(secret *trust.Secret) map[string]string {
	s := map[string]string{"--account-id": f.account, "--region": f.region, "--domain": f.domain, "--insecure": fmt.Sprint(f.insecure), "--state": f.state.engine}
	if f.state.engine == "etcd" {
		s["--etcd-prefix"] = f.state.prefix
	}
	for _, name := range []string{"NEARGATE_ROOT_ACCESS_KEY_ID", "NEARGATE_ROOT_SECRET_ACCESS_KEY", "NEARGATE_ACCOUNTS"} {
		if v := os.Getenv(name); v != "" {
			s[name] = secret.Digest(v)
		}
	}
	return s
}

// peerPort is the port for agents and other servers; parts add protocols to it before it serves.
type peerPort struct {
	*trust.Port
	credential *trust.Credential
	authority  *trust.Authority
	parts      []part
	// Set before it serves:
	admit   func(ctx context.Context, a peers.Admission) error
	revoked func() bool // whether the bootstrap secret is
}

func newPeerPort(f serverFlags, dir *datadir.Dir, authority *trust.Authority, founding *trust.Founding, log *slog.Logger) (*peerPort, error) {
	secret, ignored, err := trust.KeepSecret(dir.Keys(), f.joinToken)
	switch {
	case err != nil:
		return nil, err
	case ignored && (founding == nil || !trust.OneHosts(f.joinToken)): // that it came by such a token is no reason to take the flag away
		log.Warn("--join-token is ignored: this cluster has another one from its first start")
	case secret == nil:
		log.Warn("no host can join by a secret: this cluster has no join token")
	case f.joinToken != "" && len(f.joinToken) < trust.WeakToken:
		log.Warn("the join token is short: take one of 16 random characters or more")
	}
	p := &peerPort{authority: authority}
	if p.credential, err = authority.ServerCredential(dir.ID(), log); err != nil {
		return nil, err
	}
	p.Port = trust.NewPort(p.credential, log)
	gather := func() (*trust.Founding, error) { return trust.Gather(dir.Keys(), dir.SealingKey()) }
	tokens := trust.NewTokens(dir.SealingKey())
	admission := trust.NewAdmission(p.Port, trust.AdmissionConfig{
		Authority: authority, Clock: clock.Real{}, Log: log,
		Secret: func(token string) *trust.Secret {
			if token != "" {
				return tokens.Secret(token, clock.Real{}.Now())
			}
			if p.revoked() {
				return nil
			}
			return secret
		},
		Admit: func(ctx context.Context, token string, who trust.Identity, address string, speaks uint32) error {
			a := peers.Admission{Token: token, Ends: trust.TokenEnds(token), Host: who.String()}
			if who.Role == trust.Server {
				a.Server, a.Address, a.Speaks = who.ID, address, speaks
			}
			err := p.admit(ctx, a)
			switch {
			case errors.Is(err, peers.ErrUsed):
				return trust.ErrUsed
			case errors.Is(err, peers.ErrAddressInUse):
				return trust.ErrAddressInUse
			case errors.Is(err, peers.ErrTooOld):
				return trust.ErrTooOld
			}
			return err
		},
		Founding: gather,
	})
	p.parts = []part{{"admission", admission.Run}, {"certificate", p.credential.Run}}
	if founding != nil && len(founding.Members) > 0 {
		p.parts = append(p.parts, part{"formation", trust.NewHearth(p.Port, founding, gather, clock.Real{}, log)})
	}
	return p, nil
}

// cluster is how this server speaks to others: those it was founded with, those that it joined, or those that may come.
func (p *peerPort) cluster(dir *datadir.Dir, founding *trust.Founding, listen net.Addr) (*clusterConfig, error) {
	address, err := publicName(listen)
	if err != nil {
		return nil, err
	}
	c := &clusterConfig{port: p.Port, credential: p.credential, authority: p.authority, address: address}
	if founding == nil {
		c.members = []raft.Server{{ID: dir.ID(), Address: address}}
		return c, nil
	}
	for _, m := range founding.Members {
		c.members = append(c.members, raft.Server{ID: m.ID, Address: m.Address})
	}
	return c, nil
}
