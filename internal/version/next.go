//go:build neargate_next

package version

// Speaks, in a build for tests of upgrades, is one more than that of this tree.
const Speaks = 2
