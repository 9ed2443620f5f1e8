package drivertest

import (
	"errors"
	"slices"

	"skerry/drivers"
)

func listGroups(f *fixture) {
	for _, g := range []string{"", "never", "never/used"} {
		if got := f.list(g); len(got) > 0 {
			f.Errorf("group %q lists %v", g, got)
		}
	}
	for i, name := range []string{"top", "a/1", "a/2", "a/b/1", "a/b/c/1", "ab/1", "a.b/1"} {
		f.create(name, make([]byte, i))
	}
	f.must(f.b.Replace(f.ctx, "a/small", []byte("12345"), drivers.Condition{}))
	for _, s := range []struct {
		group string
		want  []string
	}{
		{"", []string{"a.b/1", "a/1", "a/2", "a/b/1", "a/b/c/1", "a/small", "ab/1", "top"}},
		{"a", []string{"a/1", "a/2", "a/b/1", "a/b/c/1", "a/small"}},
		{"a/b", []string{"a/b/1", "a/b/c/1"}},
		{"a/b/c", []string{"a/b/c/1"}},
		{"ab", []string{"ab/1"}},
		{"a/1", nil}, // an object, not a group
	} {
		if got := f.list(s.group); !slices.Equal(got, s.want) {
			f.Errorf("group %q lists %v, want %v", s.group, got, s.want)
		}
	}
	f.must(f.b.List(f.ctx, "a", func(i drivers.Info) error {
		stat, err := f.b.Stat(f.ctx, i.Name)
		f.must(err)
		if i != stat {
			f.Errorf("list says %+v, stat %+v", i, stat)
		}
		return nil
	}))
}

func listStops(f *fixture) {
	for i := range 20 {
		f.create("g/"+numbered(i), nil)
	}
	stop := errors.New("stop")
	n := 0
	err := f.b.List(f.ctx, "g", func(drivers.Info) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	f.is(err, stop)
	if n != 3 {
		f.Errorf("called %d times, want 3", n)
	}
}

// listWhileChanging: what is there all the time is seen exactly once.
func listWhileChanging(f *fixture) {
	const stable = 100
	var want []string
	for i := range stable {
		name := "g/stable" + numbered(i)
		want = append(want, name)
		o := f.open(name, drivers.Create)
		f.must(o.Close())
	}
	stop := make(chan struct{})
	changed := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				changed <- nil
				return
			default:
			}
			name := "g/moving" + numbered(i%50)
			if err := f.b.Replace(f.ctx, name, nil, drivers.Condition{}); err != nil {
				changed <- err
				return
			}
			if i%3 > 0 {
				if err := f.b.Unlink(f.ctx, name); err != nil {
					changed <- err
					return
				}
			}
		}
	}()
	for range 20 {
		seen := map[string]int{}
		f.must(f.b.List(f.ctx, "g", func(i drivers.Info) error {
			if !drivers.ValidName(i.Name) || drivers.Group(i.Name) != "g" {
				f.Errorf("list shows %q", i.Name)
			}
			seen[i.Name]++
			return nil
		}))
		for _, name := range want {
			if seen[name] != 1 {
				f.Errorf("%s was seen %d times", name, seen[name])
			}
		}
	}
	close(stop)
	f.must(<-changed)
}
