package output

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Printer writes the results and the notes of one command. It is not safe for concurrent use, but for
// what [Printer.Progress] returns.
type Printer struct {
	Out, Err io.Writer
	JSON     bool // results as one JSON document, notes and progress as JSON lines
	Quiet    bool // no notes, no progress
}

// Result writes the result of a command to stdout: v as indented JSON, or what text writes.
func (p *Printer) Result(v any, text func(w io.Writer) error) error {
	if !p.JSON {
		return text(p.Out)
	}
	e := json.NewEncoder(p.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Note tells people something that is not the result, on one line of stderr.
func (p *Printer) Note(format string, args ...any) {
	if p.Quiet {
		return
	}
	p.stderr(struct {
		Note string `json:"note"`
	}{fmt.Sprintf(format, args...)}, fmt.Sprintf(format, args...))
}

// Failure is how an error is told.
type Failure struct {
	Error string `json:"error"`
	Next  string `json:"next,omitempty"` // the next step
	Exit  int    `json:"exit"`           // exit code
}

// Failure tells of an error on stderr.
func (p *Printer) Failure(f Failure) {
	text := "skerry: " + f.Error
	if f.Next != "" {
		text += "\n" + "next: " + f.Next
	}
	p.stderr(f, text)
}

func (p *Printer) stderr(v any, text string) {
	if p.JSON {
		b, err := json.Marshal(v)
		if err == nil {
			text = string(b)
		}
	}
	// There is nobody to tell that stderr does not work.
	_, _ = fmt.Fprintln(p.Err, text)
}

// Width returns the number of columns of the terminal that w writes to, 0 if it is none.
func Width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Col == 0 {
		return 80 // a terminal that does not say
	}
	return int(ws.Col)
}
