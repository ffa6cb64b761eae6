package registry

import (
	"context"
	"net"
	"reflect"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Every account has a public registry besides its private ones: whoever knows it may pull, without logging in. It is one more region to the records,
// so that everything that keeps images works there too. ecr-public's operations are the private ones in that region (public), where they have the same
// shape; its images are at the host public.ecr.<domain>, below the account's alias.

// publicRegion is the region of public registries. No credential can name it.
const publicRegion = "/public"

// publicService is ecr-public, in ARNs and actions.
const publicService = "ecr-public"

// aliasPrefix makes an alias begin with a letter.
const aliasPrefix = "r"

// aliasOf is an account's alias: its number in base 36.
func aliasOf(account string) string {
	n, err := strconv.ParseUint(account, 10, 64)
	if err != nil {
		panic("registry: the account " + account + " is no number")
	}
	text := strconv.FormatUint(n, 36)
	return aliasPrefix + strings.Repeat("0", max(0, 8-len(text))) + text
}

// accountOfAlias undoes aliasOf.
func accountOfAlias(alias string) (account string, ok bool) {
	text, ok := strings.CutPrefix(alias, aliasPrefix)
	n, err := strconv.ParseUint(text, 36, 64)
	if !ok || err != nil || n >= 1e12 {
		return "", false
	}
	account = strconv.FormatUint(n, 10)
	account = strings.Repeat("0", 12-len(account)) + account
	return account, aliasOf(account) == alias
}

// isPublicHost says whether a host is that of the public registries, whatever domain follows.
func isPublicHost(host string) bool { return strings.HasPrefix(host, "public.ecr.") }

// publicName is the host[:port] of the public registries.
func (r *Registry) publicName() string {
	name := "public.ecr." + r.Domain
	if _, port, err := net.SplitHostPort(r.PublicName("", "")); err == nil {
		return net.JoinHostPort(name, port)
	}
	return name
}

// inPublic is a call's context in the public registry of its account.
func inPublic(ctx context.Context) context.Context {
	c := *api.CallFrom(ctx)
	c.Region = publicRegion
	return api.WithCall(ctx, &c)
}

// public has an operation of ecr-public done by the private one whose shapes have the same members, and more.
func public[PI, PO, I, O any](f func(context.Context, *I) (*O, error)) func(context.Context, *PI) (*PO, error) {
	return func(ctx context.Context, in *PI) (*PO, error) {
		var own I
		copyShape(reflect.ValueOf(&own).Elem(), reflect.ValueOf(in).Elem())
		done, err := f(inPublic(ctx), &own)
		if err != nil {
			return nil, err
		}
		out := new(PO)
		copyShape(reflect.ValueOf(out).Elem(), reflect.ValueOf(done).Elem())
		return out, nil
	}
}

// copyShape copies the members that two shapes have both.
func copyShape(to, from reflect.Value) {
	switch from.Kind() {
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(to.Type().Elem()))
			copyShape(to.Elem(), from.Elem())
		}
	case reflect.Slice:
		if from.IsNil() {
			return
		}
		if to.Type() == from.Type() {
			to.Set(from)
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			copyShape(to.Index(i), from.Index(i))
		}
	case reflect.Struct:
		if to.Type() == from.Type() { // times
			to.Set(from)
			return
		}
		for i := range to.NumField() {
			f := to.Type().Field(i)
			if source := from.FieldByName(f.Name); f.IsExported() && f.Name != "ResultMetadata" && source.IsValid() {
				copyShape(to.Field(i), source)
			}
		}
	default:
		to.Set(from.Convert(to.Type())) // enums are strings
	}
}

// publicARN is a repository's, as policies know it.
func publicARN(account, name string) string {
	return arn.New(publicService, "", account, "repository/"+name).String()
}

// registryOfAlias is the account that an operation's registryId names, in the public region also by its alias.
func registryOfAlias(region string, id *string) *string {
	if id == nil || region != publicRegion {
		return id
	}
	if account, ok := accountOfAlias(*id); ok {
		return &account
	}
	return id
}
