//go:build !neargate_next

package version

// Speaks is the version of this build: the newest of whatever it writes and understands.
const Speaks = 1
