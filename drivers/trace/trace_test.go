package trace_test

import (
	"context"
	"strings"
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/mem"
	"skerry/drivers/trace"
)

func TestConformance(t *testing.T) {
	wrap := func(b drivers.Backend) drivers.Backend { return trace.Wrap(b, func(string) {}) }
	drivertest.Run(t, func(*testing.T) drivers.Backend { return wrap(mem.New(mem.Options{CloneFiles: true})) }, drivertest.Options{
		CloneDir: func(t *testing.T) string { return t.TempDir() },
		Reopen: func(_ *testing.T, b drivers.Backend) drivers.Backend {
			return wrap(b.(*trace.Backend).Backend.(*mem.Backend).Kill())
		},
	})
}

func TestLinesAreStable(t *testing.T) {
	var lines []string
	b := trace.Wrap(mem.New(mem.Options{}), func(s string) { lines = append(lines, s) })
	b.Rename(func(name string) string { return strings.ReplaceAll(name, "0123456789", "ID") })
	ctx := context.Background()
	o, err := b.Open(ctx, "v/0123456789/1", drivers.Create)
	if err != nil {
		t.Fatal(err)
	}
	// Both ways of writing give the same line. All outcomes are in the lines.
	_ = o.WriteAt(make([]byte, 512), 4096)
	_, _ = o.(drivers.TryWriter).TryWriteAt(make([]byte, 512), 0)
	_, _ = o.(drivers.TryReader).TryReadAt(make([]byte, 10), 5)
	_ = o.ReadAt(make([]byte, 10), -1)
	_ = o.(drivers.Puncher).PunchHole(0, 10)
	_ = o.(drivers.Allocator).Allocate(0, 10)
	_ = o.(drivers.CacheDropper).DropCache()
	_ = o.Sync()
	_ = o.Close()
	_ = b.SyncGroup(ctx, "")
	_, _ = b.Stat(ctx, "none")
	_ = b.Replace(ctx, "pool", []byte("record"), drivers.Condition{Absent: true})
	_ = b.Replace(ctx, "pool", []byte("x"), drivers.Condition{Absent: true})
	_ = b.Replace(ctx, "pool", []byte("x"), drivers.Condition{Prefix: []byte("y")})
	_, _ = b.Load(ctx, "pool")
	_ = b.List(ctx, "v", func(drivers.Info) error { return nil })
	l, _ := b.Lock(ctx, "i")
	_, _ = b.Lock(ctx, "i")
	_ = l.Close()
	_ = b.Unlink(ctx, "pool")
	_, _ = b.Open(ctx, "pool", drivers.ReadOnly)
	want := `create v/ID/1
write v/ID/1 4096+512
write v/ID/1 0+512
read v/ID/1 5+10
read v/ID/1 -1+10: invalid
punch v/ID/1 0+10
allocate v/ID/1 0+10
dropcache v/ID/1
sync v/ID/1
syncgroup /
stat none: not found
replace pool 6 absent
replace pool 1 absent: exists
replace pool 1 prefix: conflict
load pool
list v
lock i
lock i: locked
unlink pool
open pool read-only: not found`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got lines\n%s\nwant\n%s", got, want)
	}
}
