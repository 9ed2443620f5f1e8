package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"skerry/cmd/internal/failure"
)

// stressUser is a user. Nobody else changes its volumes.
type stressUser struct {
	*stress
	id      string
	rand    *rand.Rand
	names   int
	disks   map[string]*disk    // by reference
	pending map[string]*copying // copies that were cut off, by reference
}

// copying is a copy that was cut off: the command, and what it may make.
type copying struct {
	args  []string
	could []*disk
}

// one runs a command.
func (u *stressUser) one() {
	refs := slices.Sorted(maps.Keys(u.disks))
	live := slices.DeleteFunc(slices.Clone(refs), func(r string) bool { return u.disks[r].trashed })
	trashed := slices.DeleteFunc(slices.Clone(refs), func(r string) bool { return !u.disks[r].trashed })
	op := u.rand.IntN(26)
	switch {
	case len(live) < 2 || op == 0 && len(live) < 8:
		u.imports()
		return
	case op == 1 && len(trashed) > 0:
		ref := trashed[u.rand.IntN(len(trashed))]
		d := *u.disks[ref]
		d.trashed = false
		u.do([]string{"restore", "-q", ref}, ref, &d)
		return
	case op == 2 && len(trashed) > 0:
		ref := trashed[u.rand.IntN(len(trashed))]
		u.do([]string{"rm", "-q", "--now", ref}, ref, nil)
		return
	case op <= 4 && len(u.pending) > 0:
		ref := slices.Sorted(maps.Keys(u.pending))[0]
		if op == 4 {
			u.giveUp(ref)
		} else {
			u.copyGoes(ref, u.pending[ref])
		}
		return
	}
	ref := live[u.rand.IntN(len(live))]
	d := *u.disks[ref]
	snap := -1
	if len(d.snaps) > 0 {
		snap = u.rand.IntN(len(d.snaps))
	}
	d.snaps = slices.Clone(d.snaps)
	switch {
	case op <= 5:
		u.snapshot(ref, d)
	case op <= 8:
		u.writes(ref)
	case op <= 11:
		u.clones()
	case op == 12 && len(live) < 8:
		to := u.fresh(ref)
		u.forget(ref, d)
		u.do([]string{"clone", "-q", ref, to}, to, &disk{data: d.data})
		u.settle(ref, u.disks[ref])
	case op == 13:
		u.rename(ref, d)
	case op == 14 && snap >= 0:
		d.data = d.snaps[snap].data
		u.do([]string{"rollback", "-q", ref + "@" + d.snaps[snap].name}, ref, &d)
	case op == 15:
		size := max(len(d.data)+sector*(u.rand.IntN(600)-300), sector)
		// If it is cut off, what follows the new end in its chunk may be zeros.
		var mid []*disk
		for chunk := 64 << 10; size < len(d.data) && chunk <= 128<<10; chunk *= 2 {
			m := d
			m.data = slices.Clone(d.data)
			clear(m.data[size:min(len(d.data), (size+chunk-1)/chunk*chunk)])
			mid = append(mid, &m)
		}
		d.data = append(slices.Clone(d.data[:min(size, len(d.data))]), make([]byte, max(0, size-len(d.data)))...)
		u.do([]string{"resize", "-q", "--allow-shrink", ref, strconv.Itoa(size)}, ref, &d, mid...)
	case op == 16:
		u.do([]string{"flatten", "-q", ref}, ref, &d)
	case op == 17:
		u.forget(ref, d)
		d.trashed = true
		u.do([]string{"rm", "-q", "--snapshots", "--trash", "1h", ref}, ref, &d)
	case op == 18:
		u.forget(ref, d)
		if u.rand.IntN(2) == 0 {
			u.do([]string{"rm", "-q", "--snapshots", ref}, ref, nil)
			return
		}
		u.expires(ref)
	case op == 19 && snap >= 0:
		name := d.snaps[snap].name
		u.forget(ref, disk{snaps: d.snaps[snap : snap+1]})
		d.snaps = slices.Delete(d.snaps, snap, snap+1)
		u.do([]string{"rm", "-q", ref + "@" + name}, ref, &d)
	case op == 20 && snap >= 0:
		u.do([]string{"hash", "--seal", ref + "@" + d.snaps[snap].name}, ref, &d)
	case op <= 22:
		u.copies(ref, d)
	case op == 23 && snap >= 1:
		u.delta(ref, d, u.rand.IntN(snap), snap)
	default:
		u.reads()
	}
}

// fresh returns a new name in the pool of a reference.
func (u *stressUser) fresh(near string) string {
	u.names++
	return fmt.Sprintf("%s/%s-%d", filepath.Dir(near), u.id, u.names)
}

// forget lets nobody else use snapshots that may go.
func (u *stressUser) forget(ref string, d disk) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rand.IntN(2) == 0 {
		return // others find out
	}
	for _, p := range d.snaps {
		delete(u.known, ref+"@"+p.name)
	}
}

// other returns some snapshot of anybody.
func (u *stressUser) other() (string, []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := slices.Sorted(maps.Keys(u.known))
	if len(names) == 0 {
		return "", nil
	}
	name := names[u.rand.IntN(len(names))]
	return name, u.known[name]
}

// stirred returns content with some of it changed, in blocks and parts of blocks.
func (u *stressUser) stirred(data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + u.rand.IntN(6) {
		from := sector * u.rand.IntN(len(data)/sector)
		part := data[from:min(len(data), from+sector*(1+u.rand.IntN(100)))]
		clear(part)
		if u.rand.IntN(4) > 0 {
			for i := range part {
				part[i] = byte(u.rand.Uint32())
			}
		}
	}
	return data
}

// do runs a command on a volume, which makes it what after is; cut off it leaves what was before, after, or one of mid. A command that
// finds others at the volume or its snapshots may fail, and is as good as killed.
func (u *stressUser) do(args []string, ref string, after *disk, mid ...*disk) {
	res := u.killable(u.rand, 3, args...)
	if res.code == 0 {
		u.settle(ref, after)
		return
	}
	if res.code > 0 && res.code != failure.ExitHeld && res.code != failure.ExitInUse && res.code != failure.ExitNotFound {
		u.w.t.Errorf("%v: exit code %d\n%s", args, res.code, res.stderr)
	}
	if got := u.look(ref); args[0] == "rm" && got != nil && got.going {
		for try := 0; res.code != 0 && try < 20; try++ {
			res = u.killable(u.rand, 1<<30, args...)
		}
		if res.code != 0 { // somebody has cloned what is going
			delete(u.disks, ref)
			return
		}
		mid = nil
	}
	u.settle(ref, append(mid, u.disks[ref], after)...)
}

// settle looks at a volume, which is one of could, and takes over which one.
func (u *stressUser) settle(ref string, could ...*disk) {
	got := u.look(ref)
	for _, want := range could {
		if same(got, want) {
			u.take(ref, want)
			return
		}
	}
	u.w.t.Errorf("%s is %v, want one of %v", ref, got, could)
}

// expires removes a volume that any collection may remove from the trash at once.
func (u *stressUser) expires(ref string) {
	r := u.killable(u.rand, 3, "rm", "-q", "--snapshots", "--trash", "1ms", ref)
	before := u.disks[ref]
	if got := u.look(ref); r.code != 0 && got != nil && !got.trashed {
		u.settle(ref, before)
		return
	} else if got != nil && !got.trashed {
		u.w.t.Errorf("rm %s: it is still there: %v", ref, got)
	}
	delete(u.disks, ref)
}

func (u *stressUser) take(ref string, d *disk) {
	if d == nil {
		delete(u.disks, ref)
		return
	}
	u.disks[ref] = d
	if d.trashed {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range d.snaps {
		u.known[ref+"@"+p.name] = p.data
	}
}

func same(a, b *disk) bool {
	if a == nil || b == nil || a.trashed || b.trashed {
		return (a == nil) == (b == nil) && (a == nil || a.trashed == b.trashed)
	}
	return bytes.Equal(a.data, b.data) && slices.EqualFunc(a.snaps, b.snaps, func(a, b picture) bool { return a.name == b.name && bytes.Equal(a.data, b.data) })
}

// String implements [fmt.Stringer].
func (d *disk) String() string {
	if d == nil {
		return "nothing"
	}
	if d.trashed {
		return "in the trash"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes %x", len(d.data), short(d.data))
	for _, p := range d.snaps {
		fmt.Fprintf(&b, " @%s %d bytes %x", p.name, len(p.data), short(p.data))
	}
	return b.String()
}

func short(data []byte) uint32 {
	var n uint32
	for _, b := range data {
		n = n*31 + uint32(b)
	}
	return n
}

// look returns what is there under a name.
func (u *stressUser) look(ref string) *disk {
	r := u.patient("ls", "--json", ref)
	if r.code == failure.ExitNotFound {
		var in []struct{ Name string }
		trash := u.patient("ls", "--trash", "--json", "--pool", filepath.Dir(ref))
		if err := json.Unmarshal([]byte(trash.stdout), &in); err != nil {
			u.w.t.Error(err)
		}
		for _, t := range in {
			if t.Name == filepath.Base(ref) {
				return &disk{trashed: true}
			}
		}
		return nil
	}
	var snaps []struct{ Name string }
	if err := json.Unmarshal([]byte(r.stdout), &snaps); err != nil {
		u.w.t.Errorf("ls %s: %v: %s", ref, err, r.stderr)
	}
	d := &disk{data: []byte(u.patient("export", "-q", ref, "-").stdout)}
	for _, s := range snaps {
		r := u.patient("export", "-q", ref+"@"+s.Name, "-")
		d.going = d.going || r.code == failure.ExitNotFound
		d.snaps = append(d.snaps, picture{s.Name, []byte(r.stdout)})
	}
	return d
}

// patient runs a command until nobody is in its way.
func (u *stressUser) patient(args ...string) result {
	for try := 1; ; try++ {
		r := u.killable(u.rand, 1<<30, args...)
		if r.code != failure.ExitHeld && r.code != failure.ExitInUse || try == 500 {
			if r.code != 0 && r.code != failure.ExitNotFound {
				u.w.t.Errorf("%v: exit code %d after %d tries\n%s", args, r.code, try, r.stderr)
			}
			return r
		}
	}
}

func (u *stressUser) imports() {
	ref := u.fresh(u.pools[u.rand.IntN(2)] + "/x")
	data := u.stirred(make([]byte, sector*(100+u.rand.IntN(900))))
	u.do([]string{"import", "-q", "--format", "raw", "--chunk-size", "64K", u.file(data), ref}, ref, &disk{data: data})
}

func (u *stressUser) file(data []byte) string {
	path := u.w.path(u.id + ".image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		u.w.t.Error(err)
	}
	return path
}

func (u *stressUser) snapshot(ref string, d disk) {
	u.names++
	name := fmt.Sprintf("s%d", u.names)
	d.snaps = append(d.snaps, picture{name, d.data})
	u.do([]string{"snapshot", "-q", ref + "@" + name}, ref, &d)
}

// writes serves a volume, writes to it, at times takes a snapshot, and ends or kills the server.
func (u *stressUser) writes(ref string) {
	d := *u.disks[ref]
	c := u.w.command("serve", ref, "--nbd", "unix:"+u.w.path(u.id+".sock"))
	s := &server{w: u.w, cmd: c}
	c.Stderr = &s.stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		u.w.t.Error(err)
		return
	}
	line := make([]byte, 4096)
	n, _ := out.Read(line)
	if n == 0 {
		_ = c.Wait() // the exit code says it
		if code := c.ProcessState.ExitCode(); code != failure.ExitHeld && code != failure.ExitInUse {
			u.w.t.Errorf("serve %s: exit code %d: %s", ref, code, s.stderr.String())
		}
		return
	}
	s.uris = []string{strings.TrimSpace(string(line[:n]))}
	conn := u.w.dial(s, filepath.Base(ref))
	for range 1 + u.rand.IntN(4) {
		next := u.stirred(d.data)
		for from := 0; from < len(next); from += 8 * sector {
			to := min(from+8*sector, len(next))
			if !bytes.Equal(next[from:to], d.data[from:to]) {
				conn.write(next[from:to], int64(from))
			}
		}
		d.data = next
		u.disks[ref] = &d
		if u.rand.IntN(3) == 0 {
			e := d
			e.snaps = slices.Clone(d.snaps)
			u.names++
			name := fmt.Sprintf("s%d", u.names)
			r := u.killable(u.rand, 3, "snapshot", "-q", ref+"@"+name)
			e.snaps = append(e.snaps, picture{name, next})
			if r.code == 0 || r.code < 0 && u.patient("info", ref+"@"+name).code == 0 {
				d = e
				u.disks[ref] = &e
			}
		}
	}
	conn.close()
	sig := syscall.SIGTERM
	if u.rand.IntN(2) == 0 {
		sig = syscall.SIGKILL
	}
	s.signal(sig)
	_ = c.Wait() // says that it was signalled
	late := u.look(ref)
	if late != nil && len(late.snaps) > len(d.snaps) {
		// A snapshot whose command was killed, and which the server took after it was asked for.
		u.take(ref, late)
		return
	}
	u.settle(ref, &d)
}

// clones clones a snapshot of anybody.
func (u *stressUser) clones() {
	from, data := u.other()
	if from == "" || len(u.disks) > 8 {
		return
	}
	ref := u.fresh(from)
	u.do([]string{"clone", "-q", from, ref}, ref, &disk{data: data})
}

func (u *stressUser) rename(ref string, d disk) {
	to := u.fresh(ref)
	u.forget(ref, d)
	res := u.killable(u.rand, 3, "rename", "-q", ref, filepath.Base(to), "--pool", filepath.Dir(ref))
	got, other := u.look(ref), u.look(to)
	switch {
	case got == nil && same(other, &d):
		delete(u.disks, ref)
		u.take(to, &d)
	case other == nil && same(got, &d) && res.code != 0:
	default:
		u.w.t.Errorf("rename %s %s: exit code %d: %v and %v; %s", ref, to, res.code, got, other, res.stderr)
	}
}

// copies copies one of the own volumes or a snapshot of anybody.
func (u *stressUser) copies(ref string, d disk) {
	if len(u.pending) > 2 || len(u.disks) > 8 {
		return
	}
	from, want := ref, &disk{data: d.data}
	if other, data := u.other(); u.rand.IntN(2) == 0 && other != "" {
		from, want = other, &disk{data: data}
	}
	args := []string{"copy", "-q", from}
	to := u.fresh(u.pools[u.rand.IntN(2)] + "/x")
	args = append(args, to)
	if from == ref && u.rand.IntN(2) == 0 {
		args = append(args, "--snapshots")
		want.snaps = d.snaps
	}
	if u.rand.IntN(2) == 0 {
		args = append(args, "--chunk-size", "128K")
	}
	u.copyGoes(to, &copying{args, []*disk{want}})
}

// copyGoes begins a copy or goes on with it.
func (u *stressUser) copyGoes(to string, c *copying) {
	from := c.args[2]
	if d := u.disks[from]; d != nil && !d.trashed {
		again := &disk{data: d.data}
		if slices.Contains(c.args, "--snapshots") {
			again.snaps = d.snaps
		}
		c.could = append(c.could, again) // a copy that had noted nothing begins anew
	}
	res := u.killable(u.rand, 3, c.args...)
	got := u.look(to)
	if got == nil {
		if res.code == 0 {
			u.w.t.Errorf("%v: nothing is there", c.args)
		}
		if !slices.Contains([]int{-1, failure.ExitHeld, failure.ExitInUse, failure.ExitNotFound}, res.code) {
			u.w.t.Errorf("%v: exit code %d: %s", c.args, res.code, res.stderr)
		}
		u.pending[to] = c
		return
	}
	delete(u.pending, to)
	ok := false
	for _, want := range c.could {
		ok = ok || bytes.Equal(got.data, want.data)
		for _, p := range got.snaps {
			// A snapshot that is removed between two tries may be there or not.
			if !slices.ContainsFunc(c.could, func(d *disk) bool {
				return slices.ContainsFunc(d.snaps, func(q picture) bool { return p.name == q.name && bytes.Equal(p.data, q.data) })
			}) {
				u.w.t.Errorf("%v: snapshot %s is not one of the original", c.args, p.name)
			}
		}
	}
	if !ok {
		u.w.t.Errorf("%v: is %v, want one of %v", c.args, got, c.could)
	}
	u.take(to, got)
}

func (u *stressUser) giveUp(ref string) {
	for {
		r := u.killable(u.rand, 3, "rm", "-q", ref)
		if r.code == 0 || r.code == failure.ExitNotFound {
			delete(u.pending, ref)
			u.settle(ref, nil)
			return
		}
		if r.code > 0 && r.code != failure.ExitHeld && r.code != failure.ExitInUse {
			u.w.t.Errorf("rm %s: exit code %d: %s", ref, r.code, r.stderr)
			return
		}
	}
}

// delta brings a clone of an older snapshot up to date with a newer one.
func (u *stressUser) delta(ref string, d disk, older, newer int) {
	from, to := d.snaps[older], d.snaps[newer]
	path := u.w.path(u.id + ".delta")
	if r := u.killable(u.rand, 3, "export", "-q", "-f", ref+"@"+to.name, path, "--from", "@"+from.name); r.code != 0 {
		return
	}
	clone := u.fresh(ref)
	if r := u.killable(u.rand, 1<<30, "clone", "-q", ref+"@"+from.name, clone); r.code != 0 {
		return
	}
	u.disks[clone] = &disk{data: from.data}
	if r := u.patient("snapshot", "-q", clone+"@base"); r.code != 0 {
		u.w.t.Errorf("snapshot %s@base: exit code %d: %s", clone, r.code, r.stderr)
		return
	}
	before := &disk{data: from.data, snaps: []picture{{"base", from.data}}}
	u.take(clone, before)
	mid := &disk{data: from.data, snaps: append(slices.Clone(before.snaps), to)}
	after := &disk{data: to.data, snaps: mid.snaps}
	u.do([]string{"import", "-q", path, "--onto", clone}, clone, after, mid)
}

// reads exports a snapshot of anybody.
func (u *stressUser) reads() {
	from, data := u.other()
	if from == "" {
		return
	}
	r := u.killable(u.rand, 4, "export", "-q", from, "-")
	switch {
	case r.code == 0 && r.stdout != string(data):
		u.w.t.Errorf("export %s: not what was there", from)
	case r.code > 0 && r.code != failure.ExitNotFound:
		u.w.t.Errorf("export %s: exit code %d: %s", from, r.code, r.stderr)
	}
}
