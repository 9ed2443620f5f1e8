package hash

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"skerry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is content in memory. Its extents are cut at random; zeros are not always told.
type content struct {
	data []byte
	rng  func() *rand.Rand
	fail func(off int64, n int) error // asked before each read
}

func (c *content) Size() int64 { return int64(len(c.data)) }

func (c *content) ReadAt(ctx context.Context, p []byte, off int64) error {
	if c.fail != nil {
		if err := c.fail(off, len(p)); err != nil {
			return err
		}
	}
	copy(p, c.data[off:])
	return ctx.Err()
}

func (c *content) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	rng := c.rng()
	for end := off + n; off < end; {
		e := volume.Extent{Offset: off, Length: min(end-off, 1+rng.Int64N(3*LeafSize))}
		if isZero(c.data[off:][:e.Length]) && rng.IntN(4) > 0 {
			e.Flags = volume.Zero
		}
		if !fn(e) {
			return nil
		}
		off += e.Length
	}
	return nil
}

func isZero(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

// seeded returns a source of generators of random numbers that may be used at once.
func seeded(seed uint64) func() *rand.Rand {
	return func() *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
}

// seed returns the seed of a random test: SKERRY_SEED, or a new one.
func seed(t *testing.T) uint64 {
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

// recompute is what docs/hash.md says, word by word.
func recompute(data []byte) string {
	h := func(kind string, data []byte) []byte {
		out := make([]byte, 32)
		blake3.DeriveKey("skerry hash 1 "+kind, data, out)
		return out
	}
	var row [][]byte
	for rest := data; len(rest) > 0 || len(row) == 0; {
		n := min(len(rest), 4194304)
		row, rest = append(row, h("leaf", rest[:n])), rest[n:]
	}
	for len(row) > 1 {
		var next [][]byte
		for ; len(row) > 1; row = row[2:] {
			next = append(next, h("node", bytes.Join(row[:2], nil)))
		}
		row = append(next, row...)
	}
	size := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	return fmt.Sprintf("skerry1-%x", h("sum", append(size, row[0]...)))
}

// pattern is the content of which docs/hash.md shows the hash.
func pattern() []byte {
	b := make([]byte, 20<<20+512)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// TestValuesOfOtherPrograms compares with what the program in docs/hash.md and b3sum print.
func TestValuesOfOtherPrograms(t *testing.T) {
	for _, tt := range []struct {
		data []byte
		want string
	}{
		{nil, "skerry1-0ff826f50896041d0cbef04dc2fb7cf09e4d291dad9e1e59eabcdf5205ba5b2f"},
		{make([]byte, 512), "skerry1-b810b532f5d0abea40dc87ea17fbb584c3b0c6688414d975f0b2983b41b35cc7"},
		{make([]byte, 4<<20), "skerry1-058b2a5c62a625eacc295b76c0dbfd3486f8a4e5135d9988fa2d6b3acf5b0c01"},
		{make([]byte, 13<<20), "skerry1-21508db7f9b11e46263b7e2b2c7d7b0a8a74989359bba1a41ff27544d10a4e5a"},
		{pattern(), "skerry1-74e7a71629b7ee04b50de054ae72301c83767848700d71bf58a622012b5f0f84"},
	} {
		sum, err := Of(t.Context(), &content{data: tt.data, rng: seeded(1)}, Options{})
		if err != nil || sum.String() != tt.want {
			t.Errorf("%d bytes: %v, %v, want %s", len(tt.data), sum, err, tt.want)
		}
		doc, err := os.ReadFile("../../docs/hash.md")
		if err != nil || len(tt.data) > 0 && !strings.Contains(string(doc), tt.want) {
			t.Errorf("docs/hash.md lacks the hash of %d bytes, %v", len(tt.data), err)
		}
	}
}

// someContent returns up to max bytes: runs of zeros and of data, at random.
func someContent(rng *rand.Rand, limit int) []byte {
	data := make([]byte, rng.IntN(limit))
	for off := 0; off < len(data); {
		n := min(1+rng.IntN(2*LeafSize), len(data)-off)
		if rng.IntN(2) == 0 {
			fill(rng, data[off:][:n])
		}
		off += n
	}
	return data
}

func fill(rng *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

func TestR15SumEqualsAnIndependentRecomputation(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	for range 8 {
		data := someContent(rng, 40<<20)
		want := recompute(data)
		var last int64
		progress := func(done, total int64) {
			if done <= last && total > 0 || total != int64(len(data)) {
				t.Errorf("progress %d of %d after %d", done, total, last)
			}
			last = done
		}
		sum, err := Of(t.Context(), &content{data: data, rng: seeded(s)}, Options{Workers: 1 + rng.IntN(6), Progress: progress})
		if err != nil || sum.String() != want || last != int64(len(data)) {
			t.Fatalf("%d bytes: %v, %v after %d, want %s", len(data), sum, err, last, want)
		}
		read, size, err := OfReader(t.Context(), bytes.NewReader(data), 1, Options{})
		if err != nil || read != sum || size != int64(len(data)) {
			t.Fatalf("%d bytes: read %v of %d, %v, want %s", len(data), read, size, err, want)
		}
		tree, err := Grow(t.Context(), &content{data: data, rng: seeded(s)}, Options{})
		if err != nil || tree.Sum != sum {
			t.Fatalf("%d bytes: a tree with %v, %v", len(data), tree, err)
		}
	}
}

// empty is a content of zeros of any size.
type empty int64

func (e empty) Size() int64 { return int64(e) }

func (e empty) ReadAt(context.Context, []byte, int64) error { return errors.New("zeros are not read") }

func (e empty) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	fn(volume.Extent{Offset: off, Length: n, Flags: volume.Zero})
	return nil
}

func TestZerosCostNothing(t *testing.T) {
	for _, size := range []int64{4 << 50, 4<<40 + 512, 3<<40 - 4<<20} {
		sum, err := Of(t.Context(), empty(size), Options{})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := Grow(t.Context(), empty(size), Options{})
		if err != nil || tree.Sum != sum || len(tree.Cells) > 1 {
			t.Fatalf("%d bytes: %d cells, %v and %v, %v", size, len(tree.Cells), tree.Sum, sum, err)
		}
		if err := tree.Verify(t.Context(), empty(size), Options{}, func(off, n int64, err error) {
			t.Errorf("%d bytes: %d at %d: %v", size, n, off, err)
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestSumsOfSubtrees compares the ways to the hash of zeros: one leaf after the other, and all at once.
func TestSumsOfSubtrees(t *testing.T) {
	for n := uint64(1); n < 70; n++ {
		one, all := newTree(noGrain, nil), newTree(noGrain, nil)
		for range n {
			one.add(one.zero(0), 0)
		}
		all.addZeros(n)
		if one.sum(1) != all.sum(1) {
			t.Errorf("%d leaves of zeros: the sums differ", n)
		}
	}
}

func TestReadersAreFilledUp(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, LeafSize - 1, LeafSize, LeafSize + 1, 2 * LeafSize} {
		data := bytes.Repeat([]byte{7}, n)
		padded := append(data, make([]byte, (512-n%512)%512)...)
		sum, size, err := OfReader(t.Context(), bytes.NewReader(data[:n]), 512, Options{})
		if err != nil || sum.String() != recompute(padded) || size != int64(len(padded)) {
			t.Errorf("%d bytes: %v of %d, %v", n, sum, size, err)
		}
	}
}

func TestVerifyNamesTheDamagedPart(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	for range 6 {
		data := append(someContent(rng, 30<<20), 1)
		tree, err := Grow(t.Context(), &content{data: data, rng: seeded(s)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		verify := func(c *content) (told []int64) {
			err := tree.Verify(t.Context(), c, Options{Workers: 3}, func(off, n int64, err error) {
				if n != min(LeafSize, int64(len(data))-off) || err == nil {
					t.Errorf("part of %d bytes at %d: %v", n, off, err)
				}
				told = append(told, off/LeafSize)
			})
			if err != nil {
				t.Fatal(err)
			}
			return told
		}
		if told := verify(&content{data: data, rng: seeded(s)}); told != nil {
			t.Fatalf("sound content: damage in %v", told)
		}
		hurt := bytes.Clone(data)
		at := rng.IntN(len(hurt))
		hurt[at] ^= 1 << rng.IntN(8)
		if told := verify(&content{data: hurt, rng: seeded(s)}); len(told) != 1 || told[0] != int64(at)/LeafSize {
			t.Errorf("damage at %d: told of %v", at, told)
		}
		clear(hurt) // all that was data is gone
		for _, leaf := range verify(&content{data: hurt, rng: seeded(s)}) {
			if isZero(data[leaf*LeafSize:][:min(LeafSize, int64(len(data))-leaf*LeafSize)]) {
				t.Errorf("leaf %d was zeros", leaf)
			}
		}
		errBroken := errors.New("broken")
		broken := &content{data: data, rng: func() *rand.Rand { return rand.New(rand.NewPCG(4, 4)) }, fail: func(off int64, n int) error {
			if off/LeafSize == int64(len(data)-1)/LeafSize {
				return errBroken
			}
			return nil
		}}
		if told := verify(broken); len(told) != 1 || told[0] != int64(len(data)-1)/LeafSize {
			t.Errorf("unreadable end: told of %v", told)
		}
		if _, err := Of(t.Context(), broken, Options{}); !errors.Is(err, errBroken) {
			t.Errorf("unreadable end: %v", err)
		}
	}
}

// TestCellsOfLargeContents looks at trees whose cells are more than a leaf.
func TestCellsOfLargeContents(t *testing.T) {
	for size, want := range map[int64]uint8{0: 0, 1: 0, maxCells * LeafSize: 0, maxCells*LeafSize + 1: 1, 2 * maxCells * LeafSize: 1, 4 << 50: 10} {
		if got := GrainOf(size); got != want {
			t.Errorf("grain of %d bytes is %d, want %d", size, got, want)
		}
	}
	// A tree with cells of 4 leaves, of 11 leaves in all: the fifth and the tenth are data.
	var cells []uint64
	tree := newTree(2, func(cell uint64, h [Size]byte) { cells = append(cells, cell) })
	tree.addZeros(4)
	tree.add([Size]byte{1}, 0)
	tree.addZeros(4)
	tree.add([Size]byte{2}, 0)
	tree.addZeros(1)
	tree.sum(11 * LeafSize)
	if fmt.Sprint(cells) != "[1 2]" {
		t.Errorf("cells %v", cells)
	}
}

func TestVerifyOfOtherSizes(t *testing.T) {
	tree, err := Grow(t.Context(), empty(1<<20), Options{})
	if err != nil {
		t.Fatal(err)
	}
	none := func(int64, int64, error) { t.Error("damage was told") }
	if err := tree.Verify(t.Context(), empty(2<<20), Options{}, none); !errors.Is(err, ErrMismatch) {
		t.Error(err)
	}
	tree.Sum[0] ^= 1
	if err := tree.Verify(t.Context(), empty(1<<20), Options{}, none); !errors.Is(err, ErrMismatch) {
		t.Error(err)
	}
}

func TestCancelledHash(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &content{data: make([]byte, 40<<20), rng: seeded(1), fail: func(int64, int) error { cancel(); return nil }}
	c.data[0], c.data[30<<20] = 1, 1
	if _, err := Of(ctx, c, Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSumsReadBack(t *testing.T) {
	want := Sum{1, 2, 0xff}
	got, err := ParseSum(want.String())
	if err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "skerry1-", want.String()[:70], want.String() + "0", strings.ToUpper(want.String()), "x" + want.String(),
		"skerry2" + want.String()[7:], "skerry1-" + strings.Repeat("g", 64), strings.Replace(want.String(), "ff", "FF", 1)} {
		if s, err := ParseSum(bad); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	c := &content{data: make([]byte, 256<<20), rng: seeded(1)}
	fill(rand.New(rand.NewPCG(1, 1)), c.data)
	b.SetBytes(c.Size())
	for b.Loop() {
		if _, err := Of(b.Context(), c, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
