package source_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"skerry/drivers"
	"skerry/drivers/drivertest"
	"skerry/drivers/mem"
	"skerry/drivers/source"
)

// image is a source of which each object below group shows 100 bytes, the last one less.
type image struct {
	group string
	data  []byte
	fail  error
	gate  chan struct{} // reads wait for it, if it is not nil
	began chan struct{}
}

func (i *image) Find(name string) (off, n int64, ok bool) {
	rest, below := strings.CutPrefix(name, i.group+"/data/")
	if !below || len(rest) != 1 {
		return 0, 0, false
	}
	off = 100 * int64(rest[0]-'0')
	return off, min(100, int64(len(i.data))-off), off >= 0 && off < int64(len(i.data))
}

func (i *image) ReadAt(p []byte, off int64) error {
	if i.gate != nil {
		close(i.began)
		<-i.gate
	}
	copy(p, i.data[off:off+int64(len(p))])
	return i.fail
}

func newImage(group string) *image {
	data := make([]byte, 250)
	for i := range data {
		data[i] = byte(1 + i%255)
	}
	return &image{group: group, data: data}
}

func attached(t *testing.T, inner drivers.Backend, i *image) *source.Backend {
	t.Helper()
	b := source.Wrap(inner)
	if err := b.Attach(i.group, i); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConformance has a source attached all the time.
func TestConformance(t *testing.T) {
	wrap := func(t *testing.T, b drivers.Backend) drivers.Backend { return attached(t, b, newImage("v/attached")) }
	drivertest.Run(t, func(t *testing.T) drivers.Backend { return wrap(t, mem.New(mem.Options{CloneFiles: true})) }, drivertest.Options{
		CloneDir: func(t *testing.T) string { return t.TempDir() },
		Reopen: func(t *testing.T, b drivers.Backend) drivers.Backend {
			return wrap(t, b.(*source.Backend).Backend.(*mem.Backend).Kill())
		},
	})
}

func TestSourceShowsAsObjects(t *testing.T) {
	ctx := context.Background()
	i := newImage("v/s")
	b := attached(t, mem.New(mem.Options{}), i)
	for name, want := range map[string][]byte{"v/s/data/0": i.data[:100], "v/s/data/2": i.data[200:]} {
		o, err := b.Open(ctx, name, drivers.ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		info, err := b.Stat(ctx, name)
		size, sizeErr := o.Size()
		if err != nil || sizeErr != nil || info.Size != int64(len(want)) || size != info.Size {
			t.Errorf("%s: %+v, %d bytes, %v, %v", name, info, size, err, sizeErr)
		}
		for off := range int64(150) {
			p := bytes.Repeat([]byte{9}, 60)
			if err := o.ReadAt(p, off); err != nil {
				t.Fatal(err)
			}
			end := make([]byte, 60) // zeros beyond the end
			if off < int64(len(want)) {
				copy(end, want[off:])
			}
			if !bytes.Equal(p, end) {
				t.Fatalf("%s at %d: %v", name, off, p)
			}
		}
		for what, err := range map[string]error{
			"write":   o.WriteAt([]byte("x"), 0),
			"unlink":  b.Unlink(ctx, name),
			"replace": b.Replace(ctx, name, nil, drivers.Condition{}),
		} {
			if !errors.Is(err, drivers.ErrReadOnly) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := errors.Join(o.Sync(), o.Close()); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]error{"v/s/data/3": drivers.ErrNotFound, "v/s/else": drivers.ErrNotFound, "v/s/data/1": nil} {
		_, err := b.Stat(ctx, name)
		_, openErr := b.Open(ctx, name, drivers.ReadOnly)
		_, loadErr := b.Load(ctx, name)
		if !errors.Is(err, want) || !errors.Is(openErr, want) || !errors.Is(loadErr, drivers.ErrNotFound) {
			t.Errorf("%s: stat %v, open %v, load %v", name, err, openErr, loadErr)
		}
		if _, err := b.Open(ctx, name, drivers.Create); !errors.Is(err, drivers.ErrReadOnly) {
			t.Errorf("create %s: %v", name, err)
		}
	}
	if _, err := b.Open(ctx, "v/s/data/1", drivers.ReadWrite); !errors.Is(err, drivers.ErrReadOnly) {
		t.Errorf("open for writing: %v", err)
	}
	if err := b.List(ctx, "", func(i drivers.Info) error { return errors.New(i.Name) }); err != nil {
		t.Errorf("listed: %v", err)
	}
	if err := b.Attach("v/s", i); !errors.Is(err, drivers.ErrExists) {
		t.Errorf("attached twice: %v", err)
	}
	if err := b.Attach("v//s", i); !errors.Is(err, drivers.ErrInvalid) {
		t.Errorf("attached to no group: %v", err)
	}
}

func TestOpenObjectSurvivesDetach(t *testing.T) {
	ctx := context.Background()
	i := newImage("v/s")
	b := attached(t, mem.New(mem.Options{}), i)
	o, err := b.Open(ctx, "v/s/data/1", drivers.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	b.Detach("v/s")
	b.Detach("v/s")
	p := make([]byte, 10)
	if err := o.ReadAt(p, 0); !errors.Is(err, drivers.ErrNotFound) {
		t.Errorf("detached: %v", err)
	}
	if _, err := b.Open(ctx, "v/s/data/1", drivers.ReadOnly); !errors.Is(err, drivers.ErrNotFound) {
		t.Errorf("detached: %v", err)
	}
	other := newImage("v/s")
	rand.NewChaCha8([32]byte{}).Read(other.data)
	if err := b.Attach("v/s", other); err != nil {
		t.Fatal(err)
	}
	if err := o.ReadAt(p, 0); err != nil || !bytes.Equal(p, other.data[100:110]) {
		t.Errorf("attached again: %v, %v", p, err)
	}
	other.fail = errors.New("changed")
	if err := o.ReadAt(p, 0); !errors.Is(err, other.fail) {
		t.Errorf("a read that failed: %v", err)
	}
}

func TestDetachWaitsForReads(t *testing.T) {
	i := newImage("v/s")
	i.gate, i.began = make(chan struct{}), make(chan struct{})
	b := attached(t, mem.New(mem.Options{}), i)
	o, err := b.Open(t.Context(), "v/s/data/0", drivers.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	read, detached := false, make(chan struct{})
	tasks.Go(func() {
		if err := o.ReadAt(make([]byte, 10), 0); err != nil {
			t.Error(err)
		}
		read = true
	})
	<-i.began
	tasks.Go(func() {
		b.Detach("v/s")
		close(detached)
	})
	select {
	case <-detached:
		t.Error("detached beside a read")
	default:
	}
	close(i.gate)
	tasks.Wait()
	if !read {
		t.Error("not read")
	}
}
