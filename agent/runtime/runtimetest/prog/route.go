package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// route is a small log router: it listens where the inputs of the kind forward say, and prints each record with the fields that the
// configuration adds, as TAG KEY=VALUE …, the keys in their order.
func route(config string) error {
	b, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	fields := map[string]string{}
	var listeners []net.Listener
	for section := range strings.SplitSeq(string(b), "\n\n") {
		options := map[string]string{}
		for line := range strings.Lines(section) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if key == "Record" {
				name, text, _ := strings.Cut(value, " ")
				fields[name] = text
			}
			options[key] = value
		}
		if options["Name"] != "forward" {
			continue
		}
		network, address := "unix", options["unix_path"]
		if address == "" {
			network, address = "tcp", net.JoinHostPort(options["Listen"], options["Port"])
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	var out sync.Mutex
	for _, l := range listeners {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go receive(c, fields, &out)
			}
		}()
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("routing", len(listeners))
	<-term
	// As a log router does: what has been sent is taken before the end.
	for quiet := 0; quiet < 20; time.Sleep(20 * time.Millisecond) {
		if quiet++; taken.Swap(false) {
			quiet = 0
		}
	}
	return nil
}

// taken says that something has come since it was last asked.
var taken atomic.Bool

func receive(c net.Conn, fields map[string]string, out *sync.Mutex) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		v, err := unpack(r)
		taken.Store(true)
		message, ok := v.([]any)
		if err != nil || !ok || len(message) < 3 {
			if err != io.EOF {
				fmt.Println("no message:", v, err)
			}
			return
		}
		record, _ := message[2].(map[string]string)
		maps.Copy(record, fields)
		line := fmt.Sprint(message[0])
		for _, k := range slices.Sorted(maps.Keys(record)) {
			line += " " + k + "=" + record[k]
		}
		out.Lock()
		fmt.Println(line)
		out.Unlock()
	}
}

// unpack reads what a message of the Forward protocol is made of in MessagePack: arrays, maps of strings, strings, times.
func unpack(r *bufio.Reader) (any, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	take := func(n int) []byte {
		b := make([]byte, n)
		if _, e := io.ReadFull(r, b); e != nil {
			err = e
		}
		return b
	}
	switch {
	case kind&0xf0 == 0x90:
		list := make([]any, kind&0x0f)
		for i := range list {
			if list[i], err = unpack(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	case kind&0xf0 == 0x80:
		pairs := map[string]string{}
		for range kind & 0x0f {
			k, err := unpack(r)
			if err != nil {
				return nil, err
			}
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			pairs[fmt.Sprint(k)] = fmt.Sprint(v)
		}
		return pairs, nil
	case kind&0xe0 == 0xa0:
		return string(take(int(kind & 0x1f))), err
	case kind == 0xd9:
		return string(take(int(take(1)[0]))), err
	case kind == 0xda:
		return string(take(int(binary.BigEndian.Uint16(take(2))))), err
	case kind == 0xd7: // a time with nanoseconds
		take(9)
		return "time", err
	}
	return nil, fmt.Errorf("unexpected byte %#x", kind)
}
