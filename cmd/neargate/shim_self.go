//go:build !embedshim

package main

// shimProgram is empty in plain builds: neargate executes itself.
const shimProgram = ""
