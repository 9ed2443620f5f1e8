package output

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Progress shows how far long work is: on a terminal as one line that is written again and again, with JSON as JSON
// lines on stderr, else not at all.
type Progress struct {
	p     *Printer
	verb  string
	width int
	every time.Duration
	now   func() time.Time

	mu    sync.Mutex
	start time.Time
	last  time.Time
	shown int // runes of the line that stands on the terminal
}

// Progress returns a display for work that verb names, "import".
func (p *Printer) Progress(verb string) *Progress {
	g := &Progress{p: p, verb: verb, width: Width(p.Err), every: 200 * time.Millisecond, now: time.Now}
	if p.JSON {
		g.every = time.Second
	}
	g.start = g.now()
	return g
}

// progressLine is a line of progress as JSON.
type progressLine struct {
	Progress string `json:"progress"`        // what is done
	Done     int64  `json:"done"`            // bytes
	Total    int64  `json:"total,omitempty"` // bytes; left out if unknown
	Rate     int64  `json:"rate"`            // bytes per second since the beginning
	Percent  *int   `json:"percent,omitempty"`
	Left     *int64 `json:"left,omitempty"` // seconds, if it goes on like that; left out if unknown
}

// line returns what there is to say at a moment.
func (g *Progress) line(done, total int64, now time.Time) progressLine {
	l := progressLine{Progress: g.verb, Done: done, Total: max(total, 0)}
	s := now.Sub(g.start).Seconds()
	if s > 0 {
		l.Rate = int64(float64(done) / s)
	}
	if total <= 0 {
		return l
	}
	percent := min(int(float64(done)/float64(total)*100), 100)
	l.Percent = &percent
	if done > 0 && s > 0 {
		left := int64(math.Ceil(s * (float64(max(total-done, 0)) / float64(done))))
		l.Left = &left
	}
	return l
}

func (l progressLine) text() string {
	text := fmt.Sprintf("%s: %s", l.Progress, Size(l.Done))
	if l.Percent != nil {
		text += fmt.Sprintf(" of %s, %d%%", Size(l.Total), *l.Percent)
	}
	text += fmt.Sprintf(", %s/s", Size(l.Rate))
	if l.Left != nil {
		text += ", " + duration(*l.Left) + " left"
	}
	return text
}

// duration formats seconds for people: "7s", "3m07s", "2h05m", "4d03h".
func duration(s int64) string {
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	case s < 1000*24*60*60:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
	return "years"
}

// Update says that done of total bytes are dealt with; total is negative if it is not known. It may
// be called as often as one likes.
func (g *Progress) Update(done, total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.p.Quiet || !g.p.JSON && g.width == 0 || now.Sub(g.last) < g.every {
		return
	}
	g.last = now
	l := g.line(done, total, now)
	if g.p.JSON {
		if b, err := json.Marshal(l); err == nil {
			_, _ = fmt.Fprintf(g.p.Err, "%s\n", b) // nobody to tell
		}
		return
	}
	g.draw(l.text())
}

// End removes the line from the terminal.
func (g *Progress) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shown > 0 {
		g.draw("")
		_, _ = fmt.Fprint(g.p.Err, "\r") // nobody to tell
	}
}

func (g *Progress) draw(text string) {
	text = cut(text, max(g.width-1, 1))
	n := utf8.RuneCountInString(text)
	_, _ = fmt.Fprint(g.p.Err, "\r"+text+strings.Repeat(" ", max(g.shown-n, 0))) // nobody to tell
	g.shown = n
}
