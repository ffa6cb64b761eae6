package raft_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

// BenchmarkCommit is committed changes of 1 kB, to records of their own, by concurrent clients.
func BenchmarkCommit(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			commit(b, statetest.Open(b, open, b.TempDir()), clients)
		})
	}
}

// BenchmarkCommitOfThree is the same with three servers in this process, over TCP, each with its log on the same disk.
func BenchmarkCommitOfThree(b *testing.B) {
	for _, clients := range []int{1, 64, 512, 2048} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			commit(b, three(b).Leader().Store(), clients)
		})
	}
}

func three(b *testing.B) *testcluster.Cluster {
	return testcluster.New(b, testcluster.Config{Servers: 3, Schema: statetest.Schema, Loopback: true, Configure: func(o *raft.Options) {
		o.Autopilot = raft.Autopilot{} // not the hurried one of tests
	}})
}

func commit(b *testing.B, s *state.Store, clients int) {
	var left, next atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{})
	b.ResetTimer()
	for range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for left.Add(-1) >= 0 {
				id := fmt.Sprint(next.Add(1) % 100_000)
				if _, err := s.Update(b.Context(), func(tx *state.Tx) error {
					statetest.Records.Put(tx, &statetest.Record{Id: id, Groups: []string{"all"}, Payload: make([]byte, 1000)})
					return nil
				}); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	for range clients {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

// BenchmarkStart is from nothing, and from a small state, to leading.
func BenchmarkStart(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("kept=%v", kept), func(b *testing.B) {
			dir := b.TempDir()
			for i := range b.N {
				if !kept {
					dir = b.TempDir()
				}
				engine, err := open(dir)
				if err != nil {
					b.Fatal(err)
				}
				s, err := state.New(engine, statetest.Schema, state.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				statetest.Put(b, s, &statetest.Record{Id: fmt.Sprint(i)})
				if err := engine.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLinearizable is the price of a read that must be current.
func BenchmarkLinearizable(b *testing.B) { read(b, statetest.Open(b, open, b.TempDir()), 1) }

// BenchmarkLinearizableOfThree is the same on the leader and on a follower of three servers. Readers share round trips.
func BenchmarkLinearizableOfThree(b *testing.B) {
	for _, readers := range []int{1, 1024} {
		for _, on := range []string{"leader", "follower"} {
			b.Run(fmt.Sprintf("%s/readers=%d", on, readers), func(b *testing.B) {
				c := three(b)
				s := c.Leader()
				if on == "follower" {
					s = c.Followers(s)[0]
				}
				if _, err := s.Store().Linearizable(b.Context()); err != nil {
					b.Fatal(err)
				}
				read(b, s.Store(), readers)
			})
		}
	}
}

func read(b *testing.B, s *state.Store, readers int) {
	b.SetParallelism(readers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Linearizable(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
}

// BenchmarkFailover is for how long writes are unavailable when the leader is killed, and when it is stopped and hands over: from then
// until the next write is acknowledged.
func BenchmarkFailover(b *testing.B) {
	for _, how := range []string{"killed", "stopped"} {
		b.Run(how, func(b *testing.B) {
			c := three(b)
			var gaps []time.Duration
			write := func() {
				if _, err := c.Update(b.Context(), func(tx *state.Tx) error {
					statetest.Records.Put(tx, &statetest.Record{Id: "a"})
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			for range b.N {
				leader := c.Leader()
				write()
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond) // at any moment between two heartbeats and timers
				began := time.Now()
				if how == "killed" {
					leader.Kill()
				} else {
					leader.Stop()
				}
				write()
				gaps = append(gaps, time.Since(began))
				leader.Start()
				c.Await("it follows", func() bool { return leader.Store().Leadership().Leader != "" })
			}
			slices.Sort(gaps)
			b.ReportMetric(float64(gaps[len(gaps)/2].Milliseconds()), "median-ms")
			b.ReportMetric(float64(gaps[len(gaps)*99/100].Milliseconds()), "p99-ms")
			b.ReportMetric(float64(gaps[len(gaps)-1].Milliseconds()), "max-ms")
		})
	}
}

// BenchmarkIdle is the CPU time that three servers in this process use in a second in which nothing happens.
func BenchmarkIdle(b *testing.B) {
	c := three(b)
	c.Leader()
	before := cpu(b)
	b.ResetTimer()
	for range b.N {
		time.Sleep(time.Second)
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/b.Elapsed().Seconds()/1000, "cpu-ms/s")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
