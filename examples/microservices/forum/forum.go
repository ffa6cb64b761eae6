// Package forum is a small discussion forum that used to be one server. Users, Threads and Posts are its three parts, each
// now a service of its own behind one load balancer that sends /api/users, /api/threads and /api/posts to them.
package forum

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// User is who writes.
type User struct {
	ID       int    `json:"id"`
	Username string `json:"username"`
	Bio      string `json:"bio"`
}

// Thread is one discussion.
type Thread struct {
	ID        int    `json:"id"`
	Title     string `json:"title"`
	CreatedBy int    `json:"createdBy"` // a user's id
}

// Post is one contribution to a thread.
type Post struct {
	ID     int    `json:"id"`
	Thread int    `json:"thread"`
	Author int    `json:"author"` // a user's id
	Text   string `json:"text"`
}

var users = []User{
	{1, "ada", "Writes programs for machines that do not exist yet."},
	{2, "grace", "Keeps a moth in her notebook."},
	{3, "edsger", "Considers it harmful."},
}

var threads = []Thread{{1, "What did you split first?", 1}, {2, "Where do the logs go?", 2}}

// Users serves /api/users and /api/users/{id}.
func Users() http.Handler {
	mux := service("users")
	mux.HandleFunc("GET /api/users", func(w http.ResponseWriter, _ *http.Request) { answer(w, users) })
	mux.HandleFunc("GET /api/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		one(w, r, users, func(u User) int { return u.ID })
	})
	return mux
}

// Threads serves /api/threads and /api/threads/{id}.
func Threads() http.Handler {
	mux := service("threads")
	mux.HandleFunc("GET /api/threads", func(w http.ResponseWriter, _ *http.Request) { answer(w, threads) })
	mux.HandleFunc("GET /api/threads/{id}", func(w http.ResponseWriter, r *http.Request) {
		one(w, r, threads, func(t Thread) int { return t.ID })
	})
	return mux
}

// Posts serves /api/posts/in-thread/{thread}, takes new posts at POST /api/posts (each task keeps its own: this is an
// example of routing, not of storage) and streams ticks at /api/posts/stream.
func Posts() http.Handler {
	var mu sync.Mutex
	posts := []Post{{1, 1, 1, "The users. They had fewer columns than I feared."}, {2, 1, 3, "The monolith, from my machine."}, {3, 2, 2, "neargate logs -f"}}
	mux := service("posts")
	mux.HandleFunc("GET /api/posts/in-thread/{thread}", func(w http.ResponseWriter, r *http.Request) {
		thread, _ := strconv.Atoi(r.PathValue("thread"))
		mu.Lock()
		defer mu.Unlock()
		found := []Post{}
		for _, p := range posts {
			if p.Thread == thread {
				found = append(found, p)
			}
		}
		answer(w, found)
	})
	mux.HandleFunc("POST /api/posts", func(w http.ResponseWriter, r *http.Request) {
		var p Post
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&p); err != nil {
			http.Error(w, "a post is a JSON object: "+err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		p.ID = len(posts) + 1
		if len(posts) < 10_000 {
			posts = append(posts, p)
		}
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(p)
	})
	mux.HandleFunc("GET /api/posts/stream", stream)
	return mux
}

// stream sends ?n= lines (10 by default, 1,000 at most), one every 20 ms.
func stream(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 1 || n > 1000 {
		n = 10
	}
	w.Header().Set("Content-Type", "text/plain")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		fmt.Fprintf(w, "tick %d\n", i)
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// service is a mux with what all three have: a health check and the task that answered.
func service(name string) *http.ServeMux {
	host, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s on %s\n", name, os.Getenv("VERSION"), host)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Version", os.Getenv("VERSION"))
	json.NewEncoder(w).Encode(v)
}

func one[T any](w http.ResponseWriter, r *http.Request, all []T, id func(T) int) {
	n, _ := strconv.Atoi(r.PathValue("id"))
	for _, v := range all {
		if id(v) == n {
			answer(w, v)
			return
		}
	}
	http.NotFound(w, r)
}
