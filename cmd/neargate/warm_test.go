package main

import "testing"

func TestWarmFlagsAreBounded(t *testing.T) {
	for _, c := range []struct {
		warm
		ok bool
	}{
		{warm{0, 256 << 20}, true}, {warm{100, 1 << 20}, true}, {warm{-1, 1 << 20}, false}, {warm{101, 1 << 20}, false}, {warm{1, 0}, false},
	} {
		if err := c.check(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.warm, err)
		}
	}
}
