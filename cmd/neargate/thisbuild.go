//go:build !neargate_next

package main

// nextParts are what the build for tests of upgrades has beyond this one.
func nextParts(*controlPlane) []part { return nil }
