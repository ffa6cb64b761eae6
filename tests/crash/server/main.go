// Command server is what the crash tests' containers run: an HTTP server that tells who it is, from its start to its end the
// same, and ends at once on SIGTERM. With an argument it exits with that code instead.
package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		code, err := strconv.Atoi(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println("exits with", code)
		os.Exit(code)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	me := fmt.Sprintf("%s started %s", rand.Text(), time.Now().UTC().Format(time.RFC3339Nano))
	fmt.Println(me)
	go func() {
		err := http.ListenAndServe(":3000", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, me) }))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}()
	<-end
}
