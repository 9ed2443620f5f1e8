package output

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Column is a column of a [Table].
type Column struct {
	Title string
	Right bool // numbers: aligned to the right, never cut
}

// Table is text in columns. Rows are written with two spaces between columns.
type Table struct {
	columns []Column
	rows    [][]string
}

// NewTable returns an empty table.
func NewTable(columns ...Column) *Table { return &Table{columns: columns} }

// Row adds a row, one cell a column.
func (t *Table) Row(cells ...string) {
	if len(cells) != len(t.columns) {
		panic("output: a row has other columns than its table")
	}
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = printable(c)
	}
	t.rows = append(t.rows, row)
}

const (
	gap      = 2
	minWidth = 8 // a column is not cut below this
)

// Write writes the table, with a line of titles. On a terminal of width columns (0: no limit) the widest
// columns of text are shortened, in the middle of what is too long, until the rows fit.
func (t *Table) Write(w io.Writer, width int) error {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = utf8.RuneCountInString(c.Title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	if width > 0 {
		t.fit(widths, width)
	}
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.Title
	}
	var b strings.Builder
	t.line(&b, titles, widths)
	for _, r := range t.rows {
		t.line(&b, r, widths)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) fit(widths []int, width int) {
	total := gap * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for total > width {
		widest := -1
		for i, c := range t.columns {
			if !c.Right && widths[i] > minWidth && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
		total--
	}
}

func (t *Table) line(b *strings.Builder, cells []string, widths []int) {
	var l strings.Builder
	for i, c := range cells {
		c = middle(c, widths[i])
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
		if i > 0 {
			l.WriteString("  ")
		}
		if t.columns[i].Right {
			l.WriteString(pad + c)
		} else {
			l.WriteString(c + pad)
		}
	}
	b.WriteString(strings.TrimRight(l.String(), " "))
	b.WriteByte('\n')
}

// cut shortens s to n runes.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// middle shortens s to n runes: names that begin alike differ at their ends, and the other way round.
func middle(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	head := n / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}

// printable keeps what is not the project's own text (a host's name) from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
