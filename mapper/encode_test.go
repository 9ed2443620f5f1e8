package mapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/mapper/journal"
)

// someText returns up to n bytes.
func someText(rng *rand.Rand, n int) string {
	return strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(n+1))
}

func someTime(rng *rand.Rand) time.Time {
	if rng.IntN(4) == 0 {
		return time.Time{}
	}
	return time.Unix(rng.Int64N(1<<33), rng.Int64N(1e9)).UTC()
}

func someGeometry(rng *rand.Rand) chunk.Geometry {
	g, err := chunk.NewGeometry(chunk.MinSize << rng.IntN(10))
	if err != nil {
		panic(err)
	}
	return g
}

// someRefs returns page references of a volume of some pages.
func someRefs(rng *rand.Rand, id chunk.VolumeID, pages uint64) (owners []chunk.VolumeID, refs []PageRef) {
	owners = []chunk.VolumeID{id}
	for range rng.IntN(5) {
		owners = append(owners, someID(rng))
	}
	refs = []PageRef{}
	for n := rng.Uint64N(3); n < pages && len(refs) < 40; n += 1 + rng.Uint64N(1+pages/20) {
		refs = append(refs, PageRef{Number: n, Owner: uint16(rng.IntN(len(owners))), Serial: chunk.Serial(rng.Uint64())})
	}
	return owners, refs
}

func someRoot(rng *rand.Rand) *Root {
	r := &Root{
		Volume: someID(rng), Generation: 1 + rng.Uint32N(math.MaxUint32), Sequence: rng.Uint64(), Nonce: someID(rng),
		State: Creating + State(rng.IntN(4)), Held: rng.IntN(2) == 0, Failed: rng.IntN(2) == 0,
		Holder: Holder{
			Host: someText(rng, maxText), HostID: someID(rng), Boot: someID(rng), Instance: someID(rng), PID: rng.Uint32(), Socket: someText(rng, maxText), Since: someTime(rng),
		},
		Name: someText(rng, MaxNameLength), Size: 1 + rng.Int64N(MaxVolumeSize>>rng.IntN(51)), Geometry: someGeometry(rng), Created: someTime(rng),
		Parent: Parent{Volume: someID(rng), Snapshot: chunk.Serial(rng.Uint64())}, Until: someTime(rng), Mark: chunk.Serial(rng.Uint64()),
	}
	if rng.IntN(2) == 0 {
		r.Source = []byte(someText(rng, MaxSource-1) + "s")
	}
	r.Owners, r.Pages = someRefs(rng, r.Volume, PageCount(r.Geometry, r.Size))
	for range rng.IntN(MaxJournals + 1) {
		j := JournalRef{Generation: rng.Uint32(), Boot: someID(rng)}
		if rng.IntN(4) > 0 {
			j.Start = journal.Position{Object: chunk.Serial(rng.Uint64()), Offset: journal.Align * rng.Int64N(8), Lap: 1 + rng.Uint32N(9), Seq: 1 + rng.Uint64N(99), Check: rng.Uint32(), Size: journal.MinSize}
			j.Start.Offset %= j.Start.Size
		}
		r.Journals = append(r.Journals, j)
	}
	return r
}

func someSnapshot(rng *rand.Rand) *Snapshot {
	s := &Snapshot{
		Volume: someID(rng), Serial: chunk.Serial(rng.Uint64()), Name: someText(rng, MaxNameLength), Deleting: rng.IntN(2) == 0,
		Size: 1 + rng.Int64N(MaxVolumeSize>>rng.IntN(51)), Geometry: someGeometry(rng), Created: someTime(rng),
		Parent: Parent{Volume: someID(rng), Snapshot: chunk.Serial(rng.Uint64())},
	}
	s.Owners, s.Pages = someRefs(rng, s.Volume, PageCount(s.Geometry, s.Size))
	return s
}

func someSeal(rng *rand.Rand) *Seal {
	s := &Seal{
		Volume: someID(rng), Snapshot: chunk.Serial(rng.Uint64()), Created: someTime(rng), Size: 1 + rng.Int64N(MaxVolumeSize), Grain: uint8(rng.IntN(11)), Cells: []SealCell{},
	}
	index := uint32(0)
	for range rng.IntN(5) {
		index += 1 + rng.Uint32N(9)
		s.Cells = append(s.Cells, SealCell{index, [32]byte{byte(rng.Uint32())}})
	}
	return s
}

// record is one kind of stored record.
type record struct {
	name   string
	some   func(rng *rand.Rand) any
	encode func(v any) []byte
	decode func(b []byte) (any, error)
}

// records are all kinds but pages.
func records() []record {
	return []record{
		{
			"root", func(rng *rand.Rand) any { return someRoot(rng) }, func(v any) []byte { return v.(*Root).Encode() },
			func(b []byte) (any, error) { return DecodeRoot(b) },
		},
		{
			"snapshot", func(rng *rand.Rand) any { return someSnapshot(rng) }, func(v any) []byte { return v.(*Snapshot).Encode() },
			func(b []byte) (any, error) { return DecodeSnapshot(b) },
		},
		{
			"seal", func(rng *rand.Rand) any { return someSeal(rng) }, func(v any) []byte { return v.(*Seal).Encode() },
			func(b []byte) (any, error) { return DecodeSeal(b) },
		},
		{
			"name", func(rng *rand.Rand) any { return NameRecord{someText(rng, MaxNameLength), someID(rng)} }, func(v any) []byte { return v.(NameRecord).Encode() },
			func(b []byte) (any, error) { return DecodeNameRecord(b) },
		},
		{
			"trash", func(rng *rand.Rand) any { return TrashRecord{someText(rng, MaxNameLength), someID(rng), someTime(rng)} }, func(v any) []byte { return v.(TrashRecord).Encode() },
			func(b []byte) (any, error) { return DecodeTrashRecord(b) },
		},
		{
			"reader", func(rng *rand.Rand) any {
				return ReaderRecord{someID(rng), chunk.Serial(rng.Uint64()), someRoot(rng).Holder}
			}, func(v any) []byte { return v.(ReaderRecord).Encode() },
			func(b []byte) (any, error) { return DecodeReaderRecord(b) },
		},
		{
			"pool", func(rng *rand.Rand) any { return PoolRecord{someID(rng), someTime(rng)} }, func(v any) []byte { return v.(PoolRecord).Encode() },
			func(b []byte) (any, error) { return DecodePoolRecord(b) },
		},
		{
			"source", func(rng *rand.Rand) any { return someSource(rng) }, func(v any) []byte { return mustEncode(v.(*Source)) },
			func(b []byte) (any, error) { return DecodeSource(b) },
		},
	}
}

func eachRecord(t *testing.T, test func(t *testing.T, rng *rand.Rand, r record)) {
	for _, r := range records() {
		t.Run(r.name, func(t *testing.T) { test(t, random(t), r) })
	}
}

func TestRecordsReadBack(t *testing.T) {
	eachRecord(t, func(t *testing.T, rng *rand.Rand, r record) {
		for range 300 {
			v := r.some(rng)
			got, err := r.decode(r.encode(v))
			if err != nil || !reflect.DeepEqual(got, v) {
				t.Fatalf("%+v became %+v: %v", v, got, err)
			}
		}
	})
}

// checkDamage shows that no truncation and no wrong byte of b is accepted.
func checkDamage(t *testing.T, rng *rand.Rand, b []byte, decode func(b []byte) error) {
	t.Helper()
	if err := decode(b); err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if err := decode(b[:n:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
		wrong := bytes.Clone(b)
		wrong[n] ^= byte(1 + rng.IntN(255))
		if err := decode(wrong); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d of %d is wrong: %v", n, len(b), err)
		}
	}
	if err := decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a byte too many: %v", err)
	}
	body := b[:len(b)-4]
	for n := range body {
		if err := decode(sealed(body[:n])); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut short to %d bytes before its checksum: %v", n, err)
		}
	}
	if err := decode(sealed(append(bytes.Clone(body), 0))); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a byte too many before the checksum: %v", err)
	}
	binary.LittleEndian.PutUint16(body[4:], formatVersion+1)
	if err := decode(sealed(body)); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a version to come: %v", err)
	}
}

// sealed returns body with its checksum.
func sealed(body []byte) []byte {
	e := encoder{b: bytes.Clone(body)}
	return e.seal()
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	eachRecord(t, func(t *testing.T, rng *rand.Rand, r record) {
		for range 5 {
			checkDamage(t, rng, r.encode(r.some(rng)), func(b []byte) error {
				_, err := r.decode(b)
				return err
			})
		}
	})
}

// allocated returns how many bytes f allocates, the least of some runs, since others allocate too.
func allocated(f func()) uint64 {
	least := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// TestRecordsClaimNoMemory puts the largest numbers at each place of records of about 1 KiB.
func TestRecordsClaimNoMemory(t *testing.T) {
	eachRecord(t, func(t *testing.T, rng *rand.Rand, r record) {
		b := r.encode(r.some(rng))
		for len(b) < 600 && (r.name == "root" || r.name == "snapshot") {
			b = r.encode(r.some(rng))
		}
		body := b[:len(b)-4]
		for n := 0; n+4 <= len(body); n++ {
			wrong := bytes.Clone(body)
			copy(wrong[n:], "\xff\xff\xff\xff")
			wrong = sealed(wrong)
			if n := allocated(func() { r.decode(wrong) }); n > 16<<10 {
				t.Fatalf("%d bytes of input, %d allocated", len(wrong), n)
			}
		}
	})
}

func TestRootsThatCannotBeAreRefused(t *testing.T) {
	rng := random(t)
	for what, change := range map[string]func(r *Root){
		"state 0":                      func(r *Root) { r.State = 0 },
		"state 5":                      func(r *Root) { r.State = 5 },
		"generation 0":                 func(r *Root) { r.Generation = 0 },
		"no size":                      func(r *Root) { r.Size, r.Pages = 0, nil },
		"negative size":                func(r *Root) { r.Size, r.Pages = -1, nil },
		"size too large":               func(r *Root) { r.Size = MaxVolumeSize + 1 },
		"no geometry":                  func(r *Root) { r.Geometry = chunk.Geometry{} },
		"no owners":                    func(r *Root) { r.Owners, r.Pages = nil, nil },
		"another owner first":          func(r *Root) { r.Owners[0][0]++ },
		"name too long":                func(r *Root) { r.Name = strings.Repeat("x", MaxNameLength+1) },
		"host too long":                func(r *Root) { r.Holder.Host = strings.Repeat("x", maxText+1) },
		"page beyond the end":          func(r *Root) { r.Pages = []PageRef{{Number: PageCount(r.Geometry, r.Size), Serial: 1}} },
		"page twice":                   func(r *Root) { r.Pages = []PageRef{{Serial: 1}, {Serial: 2}} },
		"pages not in order":           func(r *Root) { r.Size = MaxVolumeSize; r.Pages = []PageRef{{Number: 1, Serial: 1}, {Serial: 2}} },
		"owner that is not there":      func(r *Root) { r.Pages = []PageRef{{Owner: uint16(len(r.Owners)), Serial: 1}} },
		"too many journals":            func(r *Root) { r.Journals = make([]JournalRef, MaxJournals+1) },
		"too many owners":              func(r *Root) { r.Owners = slices.Repeat(r.Owners[:1], MaxOwners+1) },
		"journal that cannot be there": func(r *Root) { r.Journals = []JournalRef{{Start: journal.Position{Size: 1}}} },
	} {
		r := someRoot(rng)
		change(r)
		if got, err := DecodeRoot(r.Encode()); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestSnapshotsThatCannotBeAreRefused(t *testing.T) {
	rng := random(t)
	for what, change := range map[string]func(s *Snapshot){
		"no size":             func(s *Snapshot) { s.Size, s.Pages = 0, nil },
		"size too large":      func(s *Snapshot) { s.Size = MaxVolumeSize + 1 },
		"no geometry":         func(s *Snapshot) { s.Geometry = chunk.Geometry{} },
		"no owners":           func(s *Snapshot) { s.Owners, s.Pages = nil, nil },
		"another owner first": func(s *Snapshot) { s.Owners[0][0]++ },
		"name too long":       func(s *Snapshot) { s.Name = strings.Repeat("x", MaxNameLength+1) },
		"page beyond the end": func(s *Snapshot) { s.Pages = []PageRef{{Number: PageCount(s.Geometry, s.Size)}} },
	} {
		s := someSnapshot(rng)
		change(s)
		if got, err := DecodeSnapshot(s.Encode()); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if s := someSnapshot(rng); s.Hidden() != (s.Name == "") {
		t.Error("hidden is wrong")
	}
}

// TestPrefixesTellVersionsApart changes what a switch of the record changes.
func TestPrefixesTellVersionsApart(t *testing.T) {
	rng := random(t)
	r := someRoot(rng)
	base := r.Encode()[:RootPrefix]
	for what, change := range map[string]func(r *Root){
		"volume":     func(r *Root) { r.Volume[15]++; r.Owners[0] = r.Volume },
		"generation": func(r *Root) { r.Generation++ },
		"sequence":   func(r *Root) { r.Sequence++ },
		"nonce":      func(r *Root) { r.Nonce[15]++ },
	} {
		c := r.Clone()
		change(c)
		if bytes.Equal(c.Encode()[:RootPrefix], base) {
			t.Errorf("roots that differ in their %s have one prefix", what)
		}
	}
	c := r.Clone()
	c.Name, c.State, c.Held, c.Pages = "x", Deleted, !c.Held, nil
	if !bytes.Equal(c.Encode()[:RootPrefix], base) {
		t.Error("the prefix depends on more than the grant and the sequence")
	}

	s := someSnapshot(rng)
	base = s.Encode()[:SnapshotPrefix]
	for what, change := range map[string]func(s *Snapshot){
		"volume":   func(s *Snapshot) { s.Volume[15]++ },
		"serial":   func(s *Snapshot) { s.Serial++ },
		"deleting": func(s *Snapshot) { s.Deleting = !s.Deleting },
	} {
		c := *s
		change(&c)
		if bytes.Equal(c.Encode()[:SnapshotPrefix], base) {
			t.Errorf("snapshots that differ in %s have one prefix", what)
		}
	}
	if RootPrefix > 512 || SnapshotPrefix > 512 {
		t.Error("a prefix is longer than a condition may be")
	}
}

func TestCloneOfARootSharesNothing(t *testing.T) {
	rng := random(t)
	r := someRoot(rng)
	for len(r.Pages) == 0 || len(r.Journals) == 0 {
		r = someRoot(rng)
	}
	before := r.Encode()
	c := r.Clone()
	if !reflect.DeepEqual(c, r) {
		t.Errorf("%+v, want %+v", c, r)
	}
	c.Owners[0][0]++
	c.Pages[0].Serial++
	c.Journals[0].Generation++
	if !bytes.Equal(r.Encode(), before) {
		t.Error("a change of the clone changed the root")
	}
}

func TestStatesHaveNames(t *testing.T) {
	for s, want := range map[State]string{Creating: "creating", Live: "live", Deleted: "deleted", 9: "state 9"} {
		if s.String() != want {
			t.Errorf("%v, want %s", s, want)
		}
	}
}
