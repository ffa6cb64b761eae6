//go:build linux && cgo

package native

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins namespaces before the Go runtime starts
)

// Names under which the program executes itself.
const (
	shimName   = "neargate-shim"
	unpackName = "neargate-unpack"
)

// Hook takes over when this process was started as shim, as unpacker of a layer or as a container's init, and then does not
// return. A program that uses the driver calls it first thing in main, a test binary in TestMain.
func Hook() {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "":
		useFilter()
		libcontainer.Init() // ends with the container's program
	case os.Args[0] == shimName:
		os.Exit(runShim(os.Args[1:]))
	case os.Args[0] == unpackName:
		os.Exit(runUnpack(os.Args[1:]))
	}
}
