package main

import (
	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/api/server"
)

// rateFlags are how fast clients may call.
func rateFlags(fl *pflag.FlagSet, r *server.Rates) {
	d := server.DefaultRates
	fl.Float64Var(&r.Read, "api-read-rate", d.Read, "calls a second that read, of each principal of an account; twice as many at once; 0: any number")
	fl.Float64Var(&r.Write, "api-write-rate", d.Write, "the same for calls that change something")
	fl.Float64Var(&r.Registry, "registry-rate", d.Registry, "requests a second of the registry's protocol, of each client address; twice as many at once; 0: any number")
}
