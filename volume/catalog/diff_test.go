package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/volume"
	"skerry/volume/catalog"
)

// diff returns what Diff tells, as text: data or zero, offset+length.
func (p *process) diff(from, to string, o catalog.DiffOptions) string {
	p.t.Helper()
	text := ""
	for _, e := range p.diffExtents(from, to, o) {
		kind := "data"
		if e.Flags&volume.Zero != 0 {
			kind = "zero"
		}
		text += fmt.Sprintf("%s %d+%d ", kind, e.Offset, e.Length)
	}
	return text
}

func (p *process) diffExtents(from, to string, o catalog.DiffOptions) (all []volume.Extent) {
	p.t.Helper()
	err := p.Diff(p.t.Context(), mustRef(p.t, from), mustRef(p.t, to), o, func(e volume.Extent) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

func mustRef(t *testing.T, s string) catalog.Ref {
	t.Helper()
	r, err := catalog.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (p *process) wantsDiff(from, to, want string) {
	p.t.Helper()
	if got := p.diff(from, to, catalog.DiffOptions{}); got != want {
		p.t.Errorf("%s to %s: %q, want %q", from, to, got, want)
	}
}

func TestDiffTellsBlocks(t *testing.T) {
	each(t, func(t *testing.T, _ drivers.Backend, p *process) {
		p.create("a", 10*gib)
		p.write("a", 0, 8*mib, 1)
		p.snapshot("a@s1")
		p.wantsDiff("a@s1", "a@s1", "")
		p.wantsDiff("a@s1", "a", "")
		p.write("a", 5*mib+100, 10, 2)
		p.write("a", 9*gib, 4<<10, 3)
		d := p.open("a")
		if err := d.Discard(t.Context(), 1*mib, 8<<10); err != nil {
			t.Fatal(err)
		}
		p.close(d)
		want := fmt.Sprintf("zero %d+8192 data %d+4096 data %d+4096 ", mib, 5*mib, int64(9*gib))
		p.wantsDiff("a@s1", "a", want)
		p.snapshot("a@s2")
		p.wantsDiff("a@s1", "a@s2", want)
		p.wantsDiff("a@s2", "a@s1", fmt.Sprintf("data %d+8192 data %d+4096 zero %d+4096 ", mib, 5*mib, int64(9*gib)))

		p.clone("a@s1", "b", 0)
		p.wantsDiff("a@s1", "b", "")
		p.write("b", 0, 4<<10, 4)
		p.wantsDiff("a@s1", "b", "data 0+4096 ")
		p.snapshot("b@s")
		p.wantsDiff("b@s", "a@s1", "data 0+4096 ")

		// A larger one: all that is beyond counts.
		p.clone("a@s1", "c", 20*gib)
		p.wantsDiff("a@s1", "c", fmt.Sprintf("zero %d+%d ", int64(10*gib), int64(10*gib)))
		p.snapshot("c@s")
		p.wantsDiff("c@s", "a@s1", "")
	})
}

func TestDiffOfRewrittenBlocks(t *testing.T) {
	_, p := newPool(t)
	p.create("a", 64*mib)
	p.write("a", 0, 8*mib, 1)
	p.snapshot("a@s1")
	p.write("a", 0, 4<<10, 1)     // the same
	p.write("a", 8<<10, 4<<10, 0) // zeros as data
	p.wantsDiff("a@s1", "a", "data 0+4096 data 8192+4096 ")
	if got := p.diff("a@s1", "a", catalog.DiffOptions{Exact: true}); got != "data 8192+4096 " {
		t.Errorf("exact: %q", got)
	}

	// Nothing is shared with an unrelated one, of another chunk size.
	if _, err := p.Create(t.Context(), "b", catalog.CreateOptions{Size: 32 * mib, ChunkSize: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	p.write("b", 0, 1*mib, 1)
	p.snapshot("b@s")
	p.wantsDiff("a@s1", "b@s", fmt.Sprintf("data 0+%d zero %d+%d ", mib, mib, 7*mib))
	if got := p.diff("a@s1", "b@s", catalog.DiffOptions{Exact: true}); got != fmt.Sprintf("zero %d+%d ", mib, 7*mib) {
		t.Errorf("exact: %q", got)
	}
	p.wantsDiff("b@s", "a@s1", fmt.Sprintf("data 0+%d zero %d+%d ", 8*mib, 32*mib, 32*mib))
}

// TestDiffOfALastBlockThatIsNotWhole: it counts as any other, unless the newer one goes on where the older one ends.
func TestDiffOfALastBlockThatIsNotWhole(t *testing.T) {
	_, p := newPool(t)
	const size = mib + 512
	p.create("a", size)
	p.write("a", 0, size, 1)
	p.snapshot("a@s1")
	p.wantsDiff("a@s1", "a@s1", "")
	p.wantsDiff("a@s1", "a", "")
	p.clone("a@s1", "b", size)
	p.snapshot("b@s")
	if err := p.Flatten(t.Context(), "b", nil); err != nil {
		t.Fatal(err)
	}
	p.wantsDiff("a@s1", "b", fmt.Sprintf("data 0+%d ", size))
	if got := p.diff("a@s1", "b", catalog.DiffOptions{Exact: true}); got != "" {
		t.Errorf("exact: %q", got)
	}
	id, err := p.Lookup(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Snapshots(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := p.Unchanged(t.Context(), "b", all[0]); err != nil || !same {
		t.Errorf("a flattened volume counts as changed: %v", err)
	}
	p.clone("a@s1", "c", size+512)
	p.wantsDiff("a@s1", "c", fmt.Sprintf("data %d+1024 ", mib))
	p.snapshot("c@s")
	p.wantsDiff("c@s", "a", "")
	p.write("a", mib, 512, 2)
	p.wantsDiff("c@s", "a", fmt.Sprintf("data %d+512 ", mib))
}

func TestDiffOfAnOpenVolumeLeavesNoSnapshot(t *testing.T) {
	_, p := newPool(t)
	p.create("a", 64*mib)
	p.snapshot("a@s1")
	d := p.open("a")
	if err := d.WriteAt(t.Context(), make([]byte, 4<<10), 4<<10); err != nil {
		t.Fatal(err)
	}
	p.wantsDiff("a@s1", "a", "data 4096+4096 ")
	info, err := p.Info(t.Context(), "a")
	if err != nil || info.Hidden != 0 {
		t.Errorf("%d hidden snapshots, %v", info.Hidden, err)
	}
	hidden, err := p.SnapshotHidden(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(t.Context(), make([]byte, 4<<10), 0); err != nil {
		t.Fatal(err)
	}
	if got := p.diff("a@s1", "a", catalog.DiffOptions{Hidden: hidden.Serial}); got != "data 4096+4096 " {
		t.Errorf("to a hidden snapshot: %q", got)
	}
	for range 2 {
		if err := p.RemoveHidden(t.Context(), "a", hidden.Serial); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := p.Info(t.Context(), "a"); err != nil || info.Hidden != 0 {
		t.Errorf("%d hidden snapshots, %v", info.Hidden, err)
	}
	err = p.Diff(t.Context(), mustRef(t, "a@s1"), mustRef(t, "a"), catalog.DiffOptions{Hidden: hidden.Serial}, func(volume.Extent) error { return nil })
	if !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("to one that was removed: %v", err)
	}
	p.close(d)
}

// TestDiffOfAPartOfABlock: the last block of a volume, though it is no whole one, comes up only if it changed.
func TestDiffOfAPartOfABlock(t *testing.T) {
	_, p := newPool(t)
	p.create("vm1", 5*4096+512)
	p.write("vm1", 4*4096, 4096+512, 1)
	p.snapshot("vm1@a")
	p.write("vm1", 0, 512, 1)
	p.snapshot("vm1@b")
	if got := p.diff("vm1@a", "vm1@b", catalog.DiffOptions{}); got != "data 0+4096 " {
		t.Errorf("changed: %s", got)
	}
	if got := p.diff("vm1@a", "vm1@a", catalog.DiffOptions{}); got != "" {
		t.Errorf("changed in itself: %s", got)
	}
	p.write("vm1", 5*4096, 512, 1) // with what is there
	p.snapshot("vm1@c")
	if got := p.diff("vm1@b", "vm1@c", catalog.DiffOptions{}); got != "data 20480+512 " {
		t.Errorf("written: %s", got)
	}
	if got := p.diff("vm1@b", "vm1@c", catalog.DiffOptions{Exact: true}); got != "" {
		t.Errorf("changed exactly: %s", got)
	}
	if _, err := p.Resize(t.Context(), "vm1", catalog.ResizeOptions{Size: 4096 + 512, Shrink: true}); err != nil {
		t.Fatal(err)
	}
	p.snapshot("vm1@d")
	if got := p.diff("vm1@c", "vm1@d", catalog.DiffOptions{Exact: true}); got != "" {
		t.Errorf("changed by making it smaller: %s", got)
	}
}

func TestDiffErrors(t *testing.T) {
	_, p := newPool(t)
	p.create("a", 64*mib)
	p.snapshot("a@s1")
	p.write("a", 0, 4<<10, 1)
	fail := func(volume.Extent) error { return errDiff }
	none := func(volume.Extent) error { return nil }
	for _, tt := range []struct {
		from, to string
		want     error
		fn       func(volume.Extent) error
	}{
		{"a", "a@s1", drivers.ErrInvalid, none},
		{"a@none", "a", catalog.ErrNotFound, none},
		{"a@s1", "a@none", catalog.ErrNotFound, none},
		{"a@s1", "none", catalog.ErrNotFound, none},
		{"a@s1", "a", errDiff, fail},
	} {
		if err := p.Diff(t.Context(), mustRef(t, tt.from), mustRef(t, tt.to), catalog.DiffOptions{}, tt.fn); !errors.Is(err, tt.want) {
			t.Errorf("%s to %s: %v, want %v", tt.from, tt.to, err, tt.want)
		}
	}
}

var errDiff = errors.New("enough")

// diffSeed returns the seed of a random test: SKERRY_SEED, or a new one.
func diffSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SKERRY_SEED=%d", seed)
	return seed
}

// TestDiffMissesNoChange compares random pictures of a family of volumes, whose layers are merged meanwhile, with their content.
func TestDiffMissesNoChange(t *testing.T) {
	seed := diffSeed(t)
	for run := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, run))
		_, p := newPool(t)
		const size = mib + 5*512
		volumes := map[string][]byte{}  // what is in volumes
		pictures := map[string][]byte{} // what is in snapshots
		var names, refs []string
		add := func(name string, content []byte) {
			volumes[name] = content
			names = append(names, name)
		}
		if _, err := p.Create(t.Context(), "v0", catalog.CreateOptions{Size: size, ChunkSize: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		add("v0", make([]byte, size))
		for n := range 24 {
			name := names[rng.IntN(len(names))]
			changeAtRandom(p, rng, name, volumes[name])
			ref := fmt.Sprintf("%s@s%d", name, n)
			p.snapshot(ref)
			pictures[ref] = bytes.Clone(volumes[name])
			refs = append(refs, ref)
			from := refs[rng.IntN(len(refs))]
			switch rng.IntN(9) {
			case 0:
				clone := fmt.Sprintf("v%d", len(names))
				grown := int64(len(pictures[from])) + rng.Int64N(200)*512
				p.clone(from, clone, grown)
				add(clone, append(bytes.Clone(pictures[from]), make([]byte, grown-int64(len(pictures[from])))...))
			case 1:
				r := mustRef(t, from)
				if err := p.Rollback(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				volumes[r.Volume] = bytes.Clone(pictures[from])
			case 2:
				if err := p.Flatten(t.Context(), name, nil); err != nil {
					t.Fatal(err)
				}
			case 3, 4:
				resized := 512 + rng.Int64N(2*size/512)*512
				if _, err := p.Resize(t.Context(), name, catalog.ResizeOptions{Size: resized, Shrink: true}); err != nil {
					t.Fatal(err)
				}
				volumes[name] = append(volumes[name], make([]byte, max(0, resized-int64(len(volumes[name]))))...)[:resized:resized]
			}
		}
		for range 40 {
			from, to := refs[rng.IntN(len(refs))], refs[rng.IntN(len(refs))]
			is := pictures[to]
			if rng.IntN(4) == 0 {
				to = names[rng.IntN(len(names))]
				is = volumes[to]
			}
			checkDiff(t, from+" to "+to, pictures[from], is, p.diffExtents(from, to, catalog.DiffOptions{}), false)
			checkDiff(t, from+" to "+to+" exactly", pictures[from], is, p.diffExtents(from, to, catalog.DiffOptions{Exact: true}), true)
		}
		p.stop()
		if t.Failed() {
			t.Fatalf("run %d", run)
		}
	}
}

// changeAtRandom does some writes and discards, often to the same places.
func changeAtRandom(p *process, rng *rand.Rand, name string, content []byte) {
	p.t.Helper()
	d := p.open(name)
	for range rng.IntN(12) {
		off := rng.IntN(len(content) - 1)
		if rng.IntN(2) == 0 {
			off %= 64 << 10
		}
		n := 1 + rng.IntN(min(len(content)-off, 1<<(8+rng.IntN(9))))
		var err error
		if rng.IntN(3) == 0 {
			clear(content[off:][:n])
			err = d.Discard(p.t.Context(), int64(off), int64(n))
		} else {
			for i := range n {
				content[off+i] = byte(rng.Uint32())
			}
			err = d.WriteAt(p.t.Context(), content[off:][:n], int64(off))
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	p.close(d)
}

// checkDiff fails unless the extents are in order, hold all that differs, and are zeros where they say so; and, if exact, hold
// no block that does not differ.
func checkDiff(t *testing.T, what string, was, is []byte, extents []volume.Extent, exact bool) {
	t.Helper()
	told := make([]bool, len(is))
	end := int64(0)
	for _, e := range extents {
		if e.Offset < end || e.Length <= 0 || e.Offset+e.Length > int64(len(is)) {
			t.Errorf("%s: extent %+v after %d of %d", what, e, end, len(is))
			return
		}
		end = e.Offset + e.Length
		for i := e.Offset; i < end; i++ {
			told[i] = true
		}
		if part := is[e.Offset:end]; e.Flags&volume.Zero != 0 && !bytes.Equal(part, make([]byte, len(part))) {
			t.Errorf("%s: extent %+v is not zeros", what, e)
		}
	}
	common := min(len(was), len(is))
	for i := range is {
		if !told[i] && (i >= common || was[i] != is[i]) {
			t.Errorf("%s: byte %d differs and is not told", what, i)
			return
		}
	}
	for b := 0; exact && b < common; b += chunk.BlockSize {
		end := min(b+chunk.BlockSize, len(is)) // the last block may be a part of one
		if told[b] && end <= common && bytes.Equal(was[b:end], is[b:end]) {
			t.Errorf("%s: block at %d is told and does not differ", what, b)
			return
		}
	}
}
