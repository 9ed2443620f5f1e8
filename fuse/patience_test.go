package fuse

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequestsOutliveASignalForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signalled, signal := context.WithCancel(t.Context())
		ctx, end := patient(signalled)
		defer end()
		signal()
		time.Sleep(patience - time.Second)
		synctest.Wait()
		if err := ctx.Err(); err != nil {
			t.Errorf("before the time: %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("after the time: goes on")
		}
	})
}

func TestRequestsThatEndLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		signalled, signal := context.WithCancel(t.Context())
		ctx, end := patient(signalled)
		end()
		if ctx.Err() == nil {
			t.Error("the context has not ended")
		}
		ctx, end = patient(signalled)
		signal()
		synctest.Wait()
		end()
		if ctx.Err() == nil {
			t.Error("after a signal: the context has not ended")
		}
	})
}
