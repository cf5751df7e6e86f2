package main

import "testing"

// TestGarbagePercent: about 8 MB of garbage, whatever the tables' size.
func TestGarbagePercent(t *testing.T) {
	for _, tt := range []struct {
		heap uint64
		want int
	}{
		{0, 100},
		{4 << 20, 100},
		{8 << 20, 100},
		{16 << 20, 50},
		{180 << 20, 5},
		{8 << 30, 1},
	} {
		if got := garbagePercent(tt.heap); got != tt.want {
			t.Errorf("heap of %d MB: %d%%, want %d%%", tt.heap>>20, got, tt.want)
		}
	}
}
