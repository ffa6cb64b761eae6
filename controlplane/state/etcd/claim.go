package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// The format key reads "neargate state 1 INSTALLATION". A version that changes what the keys mean raises the number.
const (
	formatName    = "neargate state "
	formatVersion = "1"
)

const claimTimeout = 10 * time.Second

// claim makes sure that what is below the prefix is this installation's, and takes it if nothing is.
//
// An etcd that does not answer yet is waited for a little: after a power cut everything starts at once.
func (e *Engine) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	var last error
	for {
		err := e.claimOnce(ctx)
		switch {
		case err == nil:
			return nil
		case last == nil || ctx.Err() == nil:
			last = err // later ones say no more than that time is up
		}
		if status.Code(err) != codes.Unavailable && ctx.Err() == nil || !pause(ctx, retryPause) {
			return fmt.Errorf("etcd: %w", last)
		}
	}
}

func (e *Engine) claimOnce(ctx context.Context) error {
	found, err := e.client.Get(ctx, e.keys.format())
	if err != nil {
		return fmt.Errorf("read %s at %s: %w", e.keys.format(), strings.Join(e.opts.Endpoints, ", "), err)
	}
	if len(found.Kvs) == 0 {
		if err := e.refuseForeign(ctx, found.Header.Revision); err != nil {
			return err
		}
		mine := formatName + formatVersion + " " + e.opts.Installation
		txn, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.keys.format()), "=", 0)).
			Then(clientv3.OpPut(e.keys.format(), mine)).Commit()
		switch {
		case err != nil:
			if isNoSpace(err) {
				err = noSpace()
			}
			return fmt.Errorf("take the prefix %s: %w", e.keys.prefix, err)
		case txn.Succeeded:
			return nil
		}
		return e.claimOnce(ctx) // somebody else was faster, and nobody takes it away
	}
	format := string(found.Kvs[0].Value)
	version, installation, _ := strings.Cut(strings.TrimPrefix(format, formatName), " ")
	switch {
	case !strings.HasPrefix(format, formatName):
		return fmt.Errorf("%s is %q: the prefix holds something else; choose another one", e.keys.format(), format)
	case version != formatVersion:
		return fmt.Errorf("%w: %s says format %s, known is %s", state.ErrUnknownFormat, e.keys.format(), version, formatVersion)
	case installation != e.opts.Installation:
		return fmt.Errorf("the prefix %s holds the state of another installation (%s; this one is %s): choose another prefix, or bring back the data directory that belongs to it",
			e.keys.prefix, installation, e.opts.Installation)
	}
	return nil
}

// refuseForeign refuses a prefix with something else in it, and one within an installation's. The prefix is looked at as of the revision in which
// it had no format: another server may take it now.
func (e *Engine) refuseForeign(ctx context.Context, revision int64) error {
	found, err := e.client.Get(ctx, e.keys.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("look below %s: %w", e.keys.prefix, err)
	}
	for _, kv := range found.Kvs {
		return fmt.Errorf("there is %q, but no %s: the prefix holds something else; choose another one", kv.Key, e.keys.format())
	}
	names := strings.Split(strings.Trim(e.keys.prefix, "/"), "/")
	for i := 1; i < len(names); i++ {
		outer := keys{"/" + strings.Join(names[:i], "/") + "/"}
		found, err := e.client.Get(ctx, outer.format())
		switch {
		case errors.Is(rpctypes.Error(err), rpctypes.ErrPermissionDenied): // not ours to see, so not ours to disturb
		case err != nil:
			return fmt.Errorf("read %s: %w", outer.format(), err)
		case len(found.Kvs) > 0 && strings.HasPrefix(string(found.Kvs[0].Value), formatName):
			return fmt.Errorf("the prefix %s lies within another installation's, %s; choose another one", e.keys.prefix, outer.prefix)
		}
	}
	return nil
}
