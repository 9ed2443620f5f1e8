package output

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 512: "512 B", 20 << 30: "20 GiB", 3 << 39: "1.5 TiB", -4096: "-4.0 KiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0 objects", 1: "1 object", 2: "2 objects"} {
		if got := Count(n, "object"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTableAligns(t *testing.T) {
	tab := NewTable(Column{Title: "NAME"}, Column{Title: "SIZE", Right: true}, Column{Title: "HOLDER"})
	tab.Row("vm1", "20 GiB", "-")
	tab.Row("a-longer-name", "4 MiB", "host:12")
	var b bytes.Buffer
	if err := tab.Write(&b, 0); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"NAME             SIZE  HOLDER\n" +
		"vm1            20 GiB  -\n" +
		"a-longer-name   4 MiB  host:12\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	tab := NewTable(Column{Title: "NAME"}, Column{Title: "SIZE", Right: true}, Column{Title: "PARENT"})
	tab.Row(strings.Repeat("n", 100), "1,234,567 bytes", strings.Repeat("ü", 60))
	for _, width := range []int{200, 80, 40} {
		var b bytes.Buffer
		if err := tab.Write(&b, width); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > width {
				t.Errorf("width %d: a line of %d", width, n)
			}
		}
		if !strings.Contains(b.String(), "1,234,567 bytes") {
			t.Errorf("width %d: the number was cut", width)
		}
	}
}

func TestTableShortensNamesInTheMiddle(t *testing.T) {
	tab := NewTable(Column{Title: "NAME"}, Column{Title: "SIZE", Right: true})
	tab.Row("customer-with-a-long-name-disk-1", "1 GiB")
	tab.Row("customer-with-a-long-name-disk-2", "2 GiB")
	var b bytes.Buffer
	if err := tab.Write(&b, 22); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"NAME              SIZE\n" +
		"custome…-disk-1  1 GiB\n" +
		"custome…-disk-2  2 GiB\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	if err := tab.Write(&b, 0); err != nil || !strings.Contains(b.String(), "customer-with-a-long-name-disk-2") {
		t.Errorf("in a pipe: %v\n%s", err, b.String())
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[int64]string{0: "0s", 59: "59s", 187: "3m07s", 7500: "2h05m", 356400: "4d03h", 1 << 60: "years"} {
		if got := duration(s); got != want {
			t.Errorf("%d s: %q, want %q", s, got, want)
		}
	}
}

func TestTableShowsNoControlCharacters(t *testing.T) {
	tab := NewTable(Column{Title: "HOST"})
	tab.Row("evil\x1b[2J\nhost\xff\u009b")
	var b bytes.Buffer
	if err := tab.Write(&b, 0); err != nil {
		t.Fatal(err)
	}
	if want := "HOST\nevil?[2J?host??\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestResultIsTextOrJSON(t *testing.T) {
	v := struct {
		Name string `json:"name"`
	}{"a<b"}
	text := func(w io.Writer) error { _, err := io.WriteString(w, "text\n"); return err }
	for asJSON, want := range map[bool]string{false: "text\n", true: "{\n  \"name\": \"a<b\"\n}\n"} {
		var out bytes.Buffer
		p := Printer{Out: &out, JSON: asJSON}
		if err := p.Result(v, text); err != nil || out.String() != want {
			t.Errorf("json %v: %q, %v", asJSON, out.String(), err)
		}
	}
}

func TestNotesAndFailures(t *testing.T) {
	for _, tt := range []struct {
		p    Printer
		want string
	}{
		{Printer{}, "note 1\nskerry: broken\nnext: mend it\n"},
		{Printer{Quiet: true}, "skerry: broken\nnext: mend it\n"},
		{Printer{JSON: true}, `{"note":"note 1"}` + "\n" + `{"error":"broken","next":"mend it","exit":1}` + "\n"},
	} {
		var b bytes.Buffer
		tt.p.Err = &b
		tt.p.Note("note %d", 1)
		tt.p.Failure(Failure{Error: "broken", Next: "mend it", Exit: 1})
		if b.String() != tt.want {
			t.Errorf("got %q, want %q", b.String(), tt.want)
		}
	}
}

// clock is a clock that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestProgressOnATerminal(t *testing.T) {
	var b bytes.Buffer
	c := &clock{t: time.Unix(1000, 0)}
	g := (&Printer{Err: &b}).Progress("import")
	g.width, g.now, g.start = 60, c.now, c.t
	c.t = c.t.Add(time.Second)
	g.Update(1<<30, 4<<30)
	g.Update(2<<30, 4<<30) // too soon
	c.t = c.t.Add(time.Second)
	g.Update(3<<30, -1)
	g.End()
	first := "import: 1.0 GiB of 4.0 GiB, 25%, 1.0 GiB/s, 3s left"
	second := "import: 3.0 GiB, 1.5 GiB/s"
	want := "\r" + first + "\r" + second + strings.Repeat(" ", len(first)-len(second)) + "\r" + strings.Repeat(" ", len(second)) + "\r"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestProgressAsJSONLines(t *testing.T) {
	var b bytes.Buffer
	c := &clock{t: time.Unix(1000, 0)}
	g := (&Printer{Err: &b, JSON: true}).Progress("export")
	g.now, g.start = c.now, c.t
	c.t = c.t.Add(2 * time.Second)
	g.Update(100, 200)
	g.End()
	if want := `{"progress":"export","done":100,"total":200,"rate":50,"percent":50,"left":2}` + "\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestProgressOnlyOnATerminal(t *testing.T) {
	for _, p := range []*Printer{{}, {JSON: true, Quiet: true}} {
		var b bytes.Buffer
		p.Err = &b
		g := p.Progress("import")
		g.Update(1, 2)
		g.End()
		if b.Len() != 0 {
			t.Errorf("got %q, want nothing", b.String())
		}
	}
}
