package group

import (
	"errors"
	"sync"
	"testing"
)

type member struct {
	Turn
	n int
}

// TestTogether: who comes while another works is worked on with all who came then, and each gets an answer of its own.
func TestTogether(t *testing.T) {
	var q Queue[*member]
	odd := errors.New("odd")
	began, goOn := make(chan bool), make(chan bool)
	var groups [][]*member // only whoever works touches it
	take := func(p []*member) int { return min(len(p), 3) }
	work := func(g []*member) {
		if len(groups) == 0 {
			close(began)
			<-goOn
		}
		groups = append(groups, g)
		for _, m := range g {
			if m.n%2 == 1 {
				m.Done(odd)
			} else {
				m.Done(nil)
			}
		}
	}
	var wg sync.WaitGroup
	do := func(n int) {
		wg.Go(func() {
			if err := q.Do(&member{n: n}, take, work); (err == odd) != (n%2 == 1) {
				t.Errorf("%d is answered %v", n, err)
			}
		})
	}
	do(0)
	<-began
	for n := 1; n <= 7; n++ {
		do(n)
	}
	for waiting := 0; waiting < 7; {
		q.mu.Lock()
		waiting = len(q.pending)
		q.mu.Unlock()
	}
	close(goOn)
	wg.Wait()
	var sizes []int
	for _, g := range groups {
		sizes = append(sizes, len(g))
	}
	if len(sizes) != 4 || sizes[0] != 1 || sizes[1] != 3 || sizes[2] != 3 || sizes[3] != 1 {
		t.Errorf("groups of %v", sizes)
	}
	if q.working || q.pending != nil {
		t.Error("somebody is working still")
	}
}
