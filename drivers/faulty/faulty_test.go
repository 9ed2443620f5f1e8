package faulty_test

import (
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/faulty"
	"skerry/drivers/mem"
)

func TestConformance(t *testing.T) {
	for name, hook := range map[string]faulty.Hook{"free": nil, "hooked": func(faulty.Call) faulty.Action { return faulty.Pass() }} {
		t.Run(name, func(t *testing.T) {
			wrap := func(b drivers.Backend) *faulty.Backend {
				f := faulty.Wrap(b)
				f.SetHook(hook)
				return f
			}
			drivertest.Run(t, func(*testing.T) drivers.Backend { return wrap(mem.New(mem.Options{CloneFiles: true})) }, drivertest.Options{
				CloneDir: func(t *testing.T) string { return t.TempDir() },
				Reopen: func(_ *testing.T, b drivers.Backend) drivers.Backend {
					return wrap(b.(*faulty.Backend).Backend.(*mem.Backend).Kill())
				},
			})
		})
	}
}
