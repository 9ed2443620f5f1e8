package kerneltest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit bounds the life of a guest.
const limit = 5 * time.Minute

// patience bounds the time between two lines that a test waits for.
const patience = 90 * time.Second

// Guest is a running guest.
type Guest struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed at the end of the guest's output
	said  strings.Builder
	ended bool
}

// Boot starts a guest that runs a shell script. It returns before the guest is up.
func (b *Bed) Boot(script string) *Guest {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.Dir, "run.sh"), []byte("set -e\n"+script), 0o644); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root(b.t), "scripts/uml/run.sh"), b.Dir)
	cmd.Env = append(os.Environ(), fmt.Sprintf("LIMIT=%d", int(limit/time.Second)))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, console, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = console, console
	b.Do(func() { err = cmd.Start() })
	console.Close()
	if err != nil {
		out.Close()
		b.t.Fatal(err)
	}
	g := &Guest{t: b.t, cmd: cmd, in: in, lines: make(chan string)}
	go g.read(out)
	b.t.Cleanup(g.stop)
	return g
}

// read passes on what the guest says, line by line.
func (g *Guest) read(out *os.File) {
	defer close(g.lines)
	defer out.Close()
	s := bufio.NewScanner(out)
	for s.Scan() {
		g.lines <- strings.TrimRight(s.Text(), "\r")
	}
}

// next returns the next line; ok is false at the end.
func (g *Guest) next() (line string, ok bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case line, ok = <-g.lines:
		fmt.Fprintln(&g.said, line)
	case <-timer.C:
		g.t.Fatalf("the guest says nothing for %v", patience)
	}
	return line, ok
}

// Until waits for a line that begins with word, and returns what follows it.
func (g *Guest) Until(word string) string {
	g.t.Helper()
	for {
		line, ok := g.next()
		if !ok {
			g.t.Fatalf("the guest ended and did not say %q", word)
		}
		if rest, found := strings.CutPrefix(line, word); found {
			return strings.TrimSpace(rest)
		}
	}
}

// Say writes a line to the guest's console. The script must be waiting for it.
func (g *Guest) Say(line string) {
	g.t.Helper()
	if _, err := io.WriteString(g.in, line+"\n"); err != nil {
		g.t.Fatal(err)
	}
}

// End waits for the end of the script, which must be a success, and returns all that the guest said.
func (g *Guest) End() string {
	g.t.Helper()
	for ok := true; ok; {
		_, ok = g.next()
	}
	g.ended = true
	if err := g.cmd.Wait(); err != nil {
		g.t.Fatalf("the guest's script: %v", err)
	}
	return g.said.String()
}

// stop ends a guest that is still there, and shows what it said if the test has failed.
func (g *Guest) stop() {
	if !g.ended {
		_ = g.cmd.Process.Signal(syscall.SIGTERM) // fails if it is gone
		for line := range g.lines {
			fmt.Fprintln(&g.said, line)
		}
		_ = g.cmd.Wait() // its status is the signal's
	}
	if g.t.Failed() {
		g.t.Logf("the guest said:\n%s", g.said.String())
	}
}
