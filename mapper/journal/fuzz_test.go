package journal

import (
	"bytes"
	"encoding/binary"
	"testing"

	"skerry/chunk"
)

// FuzzPosition decodes positions as a root would hold them.
func FuzzPosition(f *testing.F) {
	f.Add(Position{}.AppendTo(nil))
	f.Add(Position{Object: testObject, Offset: Align, Lap: 2, Seq: 9, Check: 1, Size: DefaultSize}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Position
		if err := p.Decode(b); err != nil {
			return
		}
		if !bytes.Equal(p.AppendTo(nil), b[:PositionSize]) {
			t.Fatalf("%x became %+v", b, p)
		}
		if !p.IsZero() && !p.valid() {
			t.Fatalf("no journal has %+v", p)
		}
	})
}

// FuzzFrame puts entries of any bytes into a frame that is valid otherwise.
func FuzzFrame(f *testing.F) {
	var b Batch
	b.Touch(someObject)
	b.Delta(someObject, 1, 3, true, true)
	b.Supersede(someObject, 1, 3)
	b.Flush(0)
	f.Add(bytes.Clone(b.buf[headerSize:]), uint64(1))
	b.Data(someObject, 9, fill(1, 1))
	b.Flush(7)
	f.Add(bytes.Clone(b.buf[headerSize:]), uint64(8))
	f.Fuzz(func(t *testing.T, body []byte, seq uint64) {
		if len(body) > 64<<10 || seq == 0 {
			return
		}
		h := header{
			version: formatVersion, generation: testGeneration, volume: testVolume, object: testObject,
			seq: seq, lap: firstLap, body: uint32(len(body)),
		}
		frame := make([]byte, frameLen(len(body)))
		copy(frame[headerSize:], body)
		h.seal(frame)
		s := newMemStore()
		s.content[testName] = frame
		start := Position{Object: testObject, Lap: firstLap, Seq: seq, Size: 128 << 10}
		frames, _, err := readAll(t, s, start)
		if err != nil {
			return
		}
		if len(frames) != 1 {
			t.Fatalf("%d frames", len(frames))
		}
		var again Batch
		for _, e := range frames[0].entries {
			encode(&again, e)
		}
		if again.err != nil || !bytes.Equal(again.buf[min(headerSize, len(again.buf)):], body) {
			t.Fatalf("read %+v, which is another encoding: %v", frames[0].entries, again.err)
		}
		for mode := range Mode(3) {
			fold(t, s, start, mode)
		}
	})
}

// encode adds e to b.
func encode(b *Batch, e Entry) {
	b.before = 0
	if e.Before != 0 {
		b.AsOf(e.Before - 1)
	}
	switch e.Kind {
	case KindTouch:
		b.Touch(e.Object)
	case KindDelta:
		b.Delta(e.Object, e.First, e.End, e.Zero, e.Durable)
	case KindData:
		b.Data(e.Object, e.First, e.Data)
	case KindSupersede:
		b.Supersede(e.Object, e.First, e.End)
	case KindFlush:
		b.Flush(e.Covers)
	}
}

// FuzzRead reads a journal of any bytes from any position, as it is and with the checksum of the frame
// at its start made right.
func FuzzRead(f *testing.F) {
	s := newMemStore()
	w := create(f, s, 16<<10)
	start := w.Head()
	for i := range 6 {
		var b Batch
		b.Touch(someObject)
		b.Delta(someObject, i, i+2, i%2 == 0, false)
		if i == 3 {
			b.Data(someObject, 0, fill(1, 2))
		}
		b.Flush(w.Last())
		if err := w.Sync(f.Context(), add(f, w, &b)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(bytes.Clone(s.content[testName]), start.AppendTo(nil))
	f.Add(bytes.Clone(s.content[testName]), w.Head().AppendTo(nil))
	f.Fuzz(func(t *testing.T, content, position []byte) {
		var p Position
		if len(content) > 256<<10 || p.Decode(position) != nil || p.IsZero() {
			return
		}
		p.Size = min(p.Size, 256<<10)
		p.Offset %= p.Size
		s := newMemStore()
		name := chunk.SerialName(testVolume, chunk.Journals, p.Object)
		s.content[name] = content
		for range 2 {
			for mode := range Mode(3) {
				st, err := Fold(t.Context(), s, testVolume, mode, Source{testGeneration, p})
				if err == nil && (!st.End.valid() || st.End.Seq != p.Seq+uint64(st.Frames) || len(st.Blocks)*chunk.BlockSize > len(content)) {
					t.Fatalf("from %+v: %+v", p, st)
				}
			}
			if p.Offset+headerSize > int64(len(content)) {
				return
			}
			n := int64(frameLen(int(binary.LittleEndian.Uint32(content[p.Offset+76:]) % MaxFrame)))
			if p.Offset+n > int64(len(content)) {
				return
			}
			frame := content[p.Offset : p.Offset+n]
			binary.LittleEndian.PutUint32(frame[checkOffset:], checksum(frame))
		}
	})
}
