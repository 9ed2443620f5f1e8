package process

import (
	"runtime"
	"testing"
)

func TestPrepareFUSE(t *testing.T) {
	had := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(had) })
	for _, c := range []struct {
		env        string
		have, want int
	}{
		{"2", 2, 2},
		{"", 2, fuseProcessors},
		{"", fuseProcessors, fuseProcessors},
		{"", fuseProcessors + 1, fuseProcessors + 1},
	} {
		t.Setenv("GOMAXPROCS", c.env)
		runtime.GOMAXPROCS(c.have)
		PrepareFUSE()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("%d processors and GOMAXPROCS=%q made %d, want %d", c.have, c.env, got, c.want)
		}
	}
}
