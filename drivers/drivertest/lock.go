package drivertest

import (
	"io"
	"slices"
	"sync/atomic"

	"skerry/drivers"
)

func (f *fixture) locker() drivers.Locker {
	f.Helper()
	l, ok := f.b.(drivers.Locker)
	if !ok {
		f.Fatal("the backend is no Locker")
	}
	return l
}

func lockExclusive(f *fixture) {
	l := f.locker()
	first, err := l.Lock(f.ctx, "i/one")
	f.must(err)
	_, err = l.Lock(f.ctx, "i/one")
	f.is(err, drivers.ErrLocked)
	other, err := l.Lock(f.ctx, "i/two")
	f.must(err)
	f.must(first.Close())
	f.is(first.Close(), drivers.ErrClosed)
	again, err := l.Lock(f.ctx, "i/one")
	f.must(err)
	f.is(first.Close(), drivers.ErrClosed) // which ends nobody else's lock
	_, err = l.Lock(f.ctx, "i/one")
	f.is(err, drivers.ErrLocked)
	f.must(again.Close())
	f.must(other.Close())
	if got := f.list("i"); !slices.Equal(got, []string{"i/one", "i/two"}) {
		f.Errorf("objects %v", got)
	}
}

func lockRace(f *fixture) {
	l := f.locker()
	locks := make([]io.Closer, 32)
	f.one(parallel(len(locks), func(i int) (err error) {
		locks[i], err = l.Lock(f.ctx, "i/o")
		return err
	}), drivers.ErrLocked)
	for _, c := range locks {
		if c != nil {
			f.must(c.Close())
		}
	}
	var holders, got atomic.Int64
	for _, err := range parallel(16, func(int) error {
		for range 50 {
			c, err := l.Lock(f.ctx, "i/p")
			if err != nil {
				f.is(err, drivers.ErrLocked)
				continue
			}
			got.Add(1)
			if holders.Add(1) != 1 {
				f.Error("two hold the lock")
			}
			holders.Add(-1)
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	}) {
		f.must(err)
	}
	if got.Load() == 0 {
		f.Error("nobody got the lock")
	}
}

func lockRemoved(f *fixture) {
	l := f.locker()
	old, err := l.Lock(f.ctx, "i/o")
	f.must(err)
	f.must(f.b.Unlink(f.ctx, "i/o"))
	c, err := l.Lock(f.ctx, "i/o") // another object
	f.must(err)
	f.must(old.Close())
	_, err = l.Lock(f.ctx, "i/o")
	f.is(err, drivers.ErrLocked)
	f.must(c.Close())

	// Locks of an object that is removed again and again are locks of the present one.
	for _, err := range parallel(8, func(int) error {
		for range 30 {
			c, err := l.Lock(f.ctx, "i/p")
			if err != nil {
				f.is(err, drivers.ErrLocked)
				continue
			}
			// The name is ours: nobody else removes it.
			if err := f.b.Unlink(f.ctx, "i/p"); err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	}) {
		f.must(err)
	}
}

func lockInvalid(f *fixture) {
	for _, name := range append([]string{""}, badNames...) {
		_, err := f.locker().Lock(f.ctx, name)
		f.is(err, drivers.ErrInvalid)
	}
}

func lockContent(f *fixture) {
	f.must(f.b.Replace(f.ctx, "i/o", []byte("beat"), drivers.Condition{}))
	c, err := f.locker().Lock(f.ctx, "i/o")
	f.must(err)
	f.equal(f.content("i/o"), []byte("beat"))
	o := f.open("i/o", drivers.ReadWrite)
	f.must(o.WriteAt([]byte("B"), 0))
	f.must(o.Close())
	_, err = f.locker().Lock(f.ctx, "i/o") // the other open's end has not ended the lock
	f.is(err, drivers.ErrLocked)
	f.must(c.Close())
	f.equal(f.content("i/o"), []byte("Beat"))
}

func lockReopen(f *fixture) {
	c, err := f.locker().Lock(f.ctx, "i/o")
	f.must(err)
	f.must(c.Close())
	f.b = f.o.Reopen(f.T, f.b)
	c, err = f.locker().Lock(f.ctx, "i/o")
	f.must(err)
	f.must(c.Close())
}
