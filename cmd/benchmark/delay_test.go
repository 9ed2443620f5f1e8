package main

import (
	"sync"
	"testing"
	"time"
)

func TestDelayLetsNobodyGoEarly(t *testing.T) {
	d, err := newDelay(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 20 {
				began := time.Now()
				d.wait()
				if took := time.Since(began); took < time.Millisecond {
					t.Errorf("held up for %v", took)
				}
			}
		})
	}
	callers.Wait()
	if err := d.close(); err != nil {
		t.Error(err)
	}
}
