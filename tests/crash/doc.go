// Package crash holds tests that end the real program in hard ways: kill -9 under load, Ctrl-C, two instances on one
// machine, parts of it killed from outside. They need what the native driver needs, and say so where it is lacking.
package crash
