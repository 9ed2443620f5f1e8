package mem_test

import (
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/mem"
)

func reopen(t *testing.T, b drivers.Backend) drivers.Backend { return b.(*mem.Backend).Kill() }

func TestConformance(t *testing.T) {
	for name, o := range map[string]mem.Options{"volatile": {CloneFiles: true}, "durable": {DurableWrites: true, CloneFiles: true}, "queued": {NoInline: true, CloneFiles: true}} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(*testing.T) drivers.Backend { return mem.New(o) }, drivertest.Options{
				Reopen: reopen, CloneDir: func(t *testing.T) string { return t.TempDir() },
			})
		})
	}
}
