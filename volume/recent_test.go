package volume

import (
	"bytes"
	"testing"

	"skerry/chunk"
	"skerry/mapper/journal"
)

func TestRecentKnowsWhatWasPutLast(t *testing.T) {
	a, b := journal.Object{Chunk: 1, Serial: 1}, journal.Object{Chunk: 1, Serial: 2}
	content := func(c byte) []byte { return bytes.Repeat([]byte{c}, chunk.BlockSize) }
	var r recent
	r.put(a, 0, content('x'))
	p := make([]byte, chunk.BlockSize)
	if r.get(a, 0, p) {
		t.Error("it took a block before the first flush")
	}
	r.reset(3)
	r.put(a, 0, content('1'))
	r.put(b, 0, content('2'))
	r.put(a, 1, content('3'))
	r.put(a, 0, content('4'))
	r.put(a, 2, content('5')) // has no room
	for _, x := range []struct {
		o     journal.Object
		block int
		want  byte
	}{{a, 0, 0}, {a, 1, '3'}, {b, 0, '2'}, {a, 2, 0}, {b, 1, 0}} {
		if x.want == 0 {
			if r.get(x.o, x.block, p) {
				t.Errorf("%v block %d: %q", x.o, x.block, p[0])
			}
		} else if !r.get(x.o, x.block, p) || !bytes.Equal(p, content(x.want)) {
			t.Errorf("%v block %d: %q, want %q", x.o, x.block, p[0], x.want)
		}
	}
	r.forget(a, 0, 1000)
	if r.get(a, 1, p) || !r.get(b, 0, p) {
		t.Error("forget took the wrong blocks")
	}
	r.put(a, 5, bytes.Repeat(content('6'), 2))
	r.forget(b, 0, 1)
	if r.get(b, 0, p) || r.get(a, 5, p) {
		t.Error("it has what was forgotten, or what it had no room for")
	}
	r.reset(2)
	r.put(b, 7, append(content('7'), content('8')...))
	if !r.get(b, 8, p) || p[0] != '8' {
		t.Error("the second block of a put is lost")
	}
}
