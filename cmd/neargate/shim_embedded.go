//go:build embedshim

package main

import _ "embed"

// shimProgram is cmd/neargate-shim, built beforehand for the same version, compressed by gzip: it is read once in the life of a data directory and
// in memory as long as this program runs.
//
//go:embed neargate-shim.gz
var shimProgram string
