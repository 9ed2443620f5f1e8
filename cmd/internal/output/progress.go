package output

import (
	"encoding/json"
	"fmt"
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
	var rate int64
	if s := now.Sub(g.start).Seconds(); s > 0 {
		rate = int64(float64(done) / s)
	}
	if g.p.JSON {
		l := progressLine{Progress: g.verb, Done: done, Total: max(total, 0), Rate: rate}
		if b, err := json.Marshal(l); err == nil {
			_, _ = fmt.Fprintf(g.p.Err, "%s\n", b) // nobody to tell
		}
		return
	}
	text := fmt.Sprintf("%s: %s", g.verb, Size(done))
	if total > 0 {
		text += fmt.Sprintf(" of %s, %d%%", Size(total), int(float64(done)/float64(total)*100))
	}
	g.draw(text + fmt.Sprintf(", %s/s", Size(rate)))
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
