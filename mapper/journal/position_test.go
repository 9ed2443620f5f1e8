package journal

import (
	"errors"
	"testing"

	"skerry/chunk"
)

func TestPositionReadsBackAsWritten(t *testing.T) {
	for _, p := range []Position{
		{},
		{Object: chunk.MakeSerial(1, 2), Offset: 512, Lap: 1 << 31, Seq: 1 << 63, Check: 7, Size: MinSize},
		{Object: 1, Offset: MaxSize - Align, Lap: 1, Seq: 1, Size: MaxSize},
	} {
		b := p.AppendTo([]byte{1})
		if len(b) != 1+PositionSize {
			t.Fatalf("%d bytes", len(b))
		}
		var q Position
		if err := q.Decode(append(b[1:], 5)); err != nil || q != p || q.IsZero() != p.IsZero() {
			t.Errorf("%+v became %+v: %v", p, q, err)
		}
	}
}

func TestPositionRefusesWhatNoJournalHas(t *testing.T) {
	good := Position{Object: 1, Offset: 512, Lap: 1, Seq: 1, Size: MinSize}
	bad := map[string]func(p *Position){
		"no size":           func(p *Position) { p.Size = 0 },
		"small":             func(p *Position) { p.Size = MinSize - Align },
		"large":             func(p *Position) { p.Size = MaxSize + Align },
		"unaligned size":    func(p *Position) { p.Size++ },
		"negative":          func(p *Position) { p.Offset = -512 },
		"at the end":        func(p *Position) { p.Offset = MinSize },
		"unaligned":         func(p *Position) { p.Offset = 1 },
		"before first lap":  func(p *Position) { p.Lap = 0 },
		"without sequence":  func(p *Position) { p.Seq = 0 },
		"only the checksum": func(p *Position) { *p = Position{Check: 1} },
	}
	for name, change := range bad {
		p := good
		change(&p)
		q := good
		if err := q.Decode(p.AppendTo(nil)); !errors.Is(err, ErrDamaged) || q != good {
			t.Errorf("%s: %v, %+v", name, err, q)
		}
		if _, _, err := readAll(t, newMemStore(), p); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
	var q Position
	if err := q.Decode(good.AppendTo(nil)[:PositionSize-1]); !errors.Is(err, ErrDamaged) {
		t.Errorf("short: %v", err)
	}
}
