// Command posts serves, takes and streams the posts of a thread.
package main

import (
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed-2f228079/neargate/examples/microservices/forum"
)

func main() {
	// As process 1 of a container nothing ends us on SIGTERM unless we do.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; os.Exit(0) }()
	log.Println("posts listens on :3000")
	log.Fatal(http.ListenAndServe(":3000", forum.Posts()))
}
