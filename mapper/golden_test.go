package mapper

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/mapper/journal"
)

var update = flag.Bool("update", false, "write testdata/*.hex anew")

// numbered returns 16 bytes that begin with from and count up.
func numbered(from byte) (b [16]byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

// fixedPage has an entry of each kind: zeros, compact, numbers too large for that, and layers of all kinds.
func fixedPage() (*content, []chunk.VolumeID) {
	const blocks = chunk.MinSize / chunk.BlockSize
	set := func(first, end int) chunk.Bitmap {
		b := chunk.NewBitmap(blocks)
		b.Set(first, end)
		return b
	}
	c := &content{}
	c.put(0, stack{{serial: chunk.MakeSerial(1, 2), full: true}})
	c.put(1, stack{{owner: 3, serial: chunk.MakeSerial(compactLimit-1, compactLimit-1), full: true}})
	c.put(2, stack{{owner: 3, serial: chunk.MakeSerial(1, compactLimit), full: true}})
	c.put(3, stack{
		{serial: chunk.MakeSerial(2, 9), data: set(0, 4), zero: set(4, 6)},
		{serial: chunk.MakeSerial(2, 8), data: set(0, 0), zero: set(6, 7)},
		{owner: 1, serial: chunk.MakeSerial(7, 8), data: set(8, 16)},
	})
	c.put(PageChunks-1, stack{{serial: chunk.MakeSerial(2, 10), data: set(15, 16)}, {owner: 1, serial: chunk.MakeSerial(7, 1), full: true}})
	return c, []chunk.VolumeID{numbered(0x10), numbered(0x30), numbered(0x50), numbered(0x70)}
}

// TestFixedEncodings shows each byte of what is stored: what changes here cannot read what is stored already.
func TestFixedEncodings(t *testing.T) {
	g := geometry(t, chunk.MinSize)
	created := time.Unix(1700000000, 5).UTC()
	owners := []chunk.VolumeID{numbered(0x10), numbered(0x30)}
	pages := []PageRef{{Number: 0, Owner: 1, Serial: chunk.MakeSerial(1, 2)}, {Number: 3, Serial: chunk.MakeSerial(5, 0xabcdef)}}
	root := &Root{
		Volume: numbered(0x10), Generation: 5, Sequence: 7, Nonce: numbered(0xa0), State: Live, Held: true,
		Holder: Holder{Host: "host1", HostID: numbered(0xb0), Boot: numbered(0xc0), Instance: numbered(0xd0), PID: 4711, Socket: "/run/s", Since: created.Add(time.Second)},
		Name:   "vm1", Size: 1 << 30, Geometry: g, Created: created, Parent: Parent{Volume: numbered(0x30), Snapshot: chunk.MakeSerial(2, 3)},
		Until: created.Add(time.Hour), Source: []byte("source"), Mark: chunk.MakeSerial(4, 0), Owners: owners, Pages: pages,
		Journals: []JournalRef{{Generation: 5, Boot: numbered(0xc0), Start: journal.Position{Object: chunk.MakeSerial(5, 1), Offset: 8192, Lap: 2, Seq: 99, Check: 0xdeadbeef, Size: 4 << 20}}},
	}
	snapshot := &Snapshot{
		Volume: numbered(0x10), Serial: chunk.MakeSerial(5, 6), Name: "s1", Deleting: true, Size: 1 << 30, Geometry: g, Created: created,
		Parent: root.Parent, Owners: owners, Pages: pages,
	}
	source := &Source{
		ID: numbered(0x90), Format: "qcow2", Size: 1 << 30, Chunks: 99, Host: "host1", HostID: numbered(0xb0), Boot: numbered(0xc0),
		Files: []SourceFile{{Path: "/images/a", Device: 0x801, Inode: 12345, Size: 4 << 20, Modified: created, Changed: created.Add(time.Second)}},
	}
	seal := &Seal{
		Volume: numbered(0x10), Snapshot: chunk.MakeSerial(5, 6), Created: created, Size: 1 << 30, Sum: [32]byte{0xaa}, Grain: 1,
		Cells: []SealCell{{2, [32]byte{0xbb}}, {9, [32]byte{0xcc}}},
	}
	c, table := fixedPage()
	for name, b := range map[string][]byte{
		"root":     root.Encode(),
		"snapshot": snapshot.Encode(),
		"seal":     seal.Encode(),
		"name":     NameRecord{Name: "vm1", Volume: numbered(0x10)}.Encode(),
		"trash":    TrashRecord{Name: "vm1", Volume: numbered(0x10), Since: created}.Encode(),
		"reader":   ReaderRecord{Volume: numbered(0x10), Snapshot: chunk.MakeSerial(5, 6), Process: root.Holder}.Encode(),
		"pool":     PoolRecord{ID: numbered(0xe0), Created: created}.Encode(),
		"source":   mustEncode(source),
		"page":     encodePage(c, numbered(0x10), 3, chunk.MakeSerial(5, 0xabcdef), g, table),
	} {
		file, got := filepath.Join("testdata", name+".hex"), dump(b)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v: run this test with -update", err)
		}
		if got != string(want) {
			t.Errorf("the encoding of a %s has changed: formatVersion must change, too; run with -update and look at git diff", name)
		}
	}
}

// dump is a hex dump in which a * stands for lines of zeros.
func dump(b []byte) string {
	var out strings.Builder
	skipped := false
	for _, line := range strings.SplitAfter(hex.Dump(b), "\n") {
		zero := strings.Contains(line, strings.Repeat("00 ", 8)+" "+strings.Repeat("00 ", 8))
		switch {
		case !zero:
			out.WriteString(line)
		case !skipped:
			out.WriteString("*\n")
		}
		skipped = zero
	}
	return out.String()
}
