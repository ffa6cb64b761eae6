//go:build embedshim

package main

import _ "embed"

// shimProgram is cmd/neargate-shim, built beforehand for the same version.
//
//go:embed neargate-shim
var shimProgram string
