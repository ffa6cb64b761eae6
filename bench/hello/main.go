// Command hello is what the benchmark's containers run: it says so to whoever waits for it, writes as many lines as it is told and says
// how long that took, and ends when that one hangs up.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	c, err := net.Dial("tcp", os.Getenv("BENCH_ADDR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if n, err := strconv.Atoi(os.Getenv("BENCH_LINES")); err == nil {
		line := []byte(strings.Repeat("x", 99) + "\n")
		began := time.Now()
		for range n {
			os.Stdout.Write(line) // a write each, as most programs do
		}
		fmt.Fprintln(c, time.Since(began))
	}
	io.Copy(io.Discard, c)
}
