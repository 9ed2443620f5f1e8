package local

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func TestSlowInlineWriteHoldsInlineWritesUpForAsLong(t *testing.T) {
	var p pace
	p.wrote(4096, 0, 3*ms, true)
	if p.inline(5 * ms) {
		t.Error("inline 2 ms after a write that took 3 ms")
	}
	if !p.inline(7 * ms) {
		t.Error("not inline 4 ms after a write that took 3 ms")
	}
}

func TestPausesDoubleWhileInlineWritesStaySlow(t *testing.T) {
	var p pace
	now := time.Duration(0)
	for _, want := range []time.Duration{4 * ms, 8 * ms, 16 * ms, 32 * ms, 64 * ms, slowPause, slowPause} {
		p.wrote(0, now, now+4*ms, true)
		now += 4 * ms
		if p.inline(now + want - 1) {
			t.Errorf("inline before %v have passed", want)
		}
		if now += want; !p.inline(now) {
			t.Errorf("not inline after %v", want)
		}
	}
	p.wrote(0, now, now+ms, true)
	p.wrote(0, now+ms, now+4*ms, true)
	if now += 4 * ms; !p.inline(now + 3*ms) {
		t.Error("a slow write after a quick one counts as one of several slow ones")
	}
}

func TestWorkersThatWaitedForProcessorsHoldNothingUp(t *testing.T) {
	var p pace
	p.wrote(4096, 0, 20*ms, false)
	if !p.inline(20 * ms) {
		t.Error("not inline after a worker's write of 20 ms")
	}
	p.wrote(4096, 0, 60*ms, false)
	if p.inline(60*ms + slowPause - 1) {
		t.Error("inline although the storage holds writers up")
	}
}

func TestLargeWritesMayTakeLonger(t *testing.T) {
	var p pace
	p.wrote(4<<20, 0, 5*ms, true)
	if !p.inline(5 * ms) {
		t.Error("not inline after 4 MiB in 5 ms")
	}
}
