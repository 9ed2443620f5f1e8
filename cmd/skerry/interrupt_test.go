package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"skerry/drivers"
	"skerry/drivers/faulty"
)

// interrupted are the commands that are interrupted at steps of their work. A command that takes time belongs here.
var interrupted = []struct {
	args  string
	after string // what it makes, if it does
	file  string // that it writes
}{
	{"import IMAGE new --chunk-size 64K", "new", ""},
	{"export vm1 out.raw", "", "out.raw"},
	{"export vm1@a out.qcow2 --format qcow2", "", "out.qcow2"},
	{"create new --size 1M", "new", ""},
	{"snapshot vm1@new", "vm1@new", ""},
	{"clone vm1@a new", "new", ""},
	{"clone vm1 new", "new", ""},
	{"rollback vm1@a", "", ""},
	{"resize other 3M", "", ""},
	{"resize other 512K --allow-shrink", "", ""},
	{"flatten kid", "", ""},
	{"copy vm1 new --snapshots", "new", ""},
	{"import --lazy IMAGE new", "new", ""},
	{"import DELTA --onto spare", "spare@b", ""},
	{"export other@b out.delta --from @a", "", "out.delta"},
	{"restore gone", "gone", ""},
	{"scrub", "", ""},
	{"hash vm1@a", "", ""},
	{"diff vm1@a vm1@b", "", ""},
	{"gc", "", ""},
	{"check", "", ""},
	{"du", "", ""},
	{"tree", "", ""},
}

// testSeed returns the seed of a random test: SKERRY_SEED, or a new one.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SKERRY_SEED=%d", seed)
	return seed
}

// TestInterruptedCommands interrupts commands at steps of their work, as the first signal does: before the k-th call of the storage.
func TestInterruptedCommands(t *testing.T) {
	rng := rand.New(rand.NewPCG(testSeed(t), 0))
	w := newPool(t)
	w.put("vm1", noise(mib, 1), "--chunk-size", "64K")
	w.ok("snapshot", "vm1@a")
	w.ok("snapshot", "vm1@b")
	w.put("other", noise(mib, 2), "--chunk-size", "64K")
	w.ok("clone", "other", "twin") // of a hidden snapshot, which is left for gc
	w.ok("rm", "twin")
	w.ok("clone", "vm1@a", "kid")
	w.put("spare", noise(mib, 2), "--chunk-size", "64K")
	w.ok("snapshot", "spare@a")
	w.ok("snapshot", "other@a")
	w.ok("resize", "other", "2M")
	w.ok("snapshot", "other@b")
	w.ok("export", "other@b", w.path("delta"), "--from", "@a")
	w.put("gone", noise(mib, 4), "--chunk-size", "64K")
	w.ok("rm", "gone", "--trash", "1h")
	files := strings.NewReplacer("IMAGE", w.path("vm1.image"), "DELTA", w.path("delta"))
	for _, tt := range interrupted {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(files.Replace(tt.args))
			all, _, _ := interruptAt(t, w, 0, args)
			steps := max(1, all/3)
			for k := 1 + rng.Int64N(steps); k <= all; k += steps {
				_, r, v := interruptAt(t, w, k, args)
				if r.code != 130 && r.code != 0 {
					t.Fatalf("step %d of %d: %+v", k, all, r)
				}
				if r.code == 130 && (r.stdout != "" || !strings.Contains(r.stderr, "next: ")) {
					t.Errorf("step %d of %d: %+v", k, all, r)
				}
				v.sound(tt.after, r.code == 0)
				if tt.file != "" {
					v.written(tt.file, r.code == 0)
				}
			}
		})
	}
}

// interruptAt runs a command on a copy of a world's pool, interrupts it before the k-th call of the storage (0: never), and returns how many calls
// there were, and the copy.
func interruptAt(t *testing.T, w *world, k int64, args []string) (int64, result, *world) {
	t.Helper()
	v := newWorld(t)
	if out, err := exec.Command("cp", "-a", w.pool, v.pool).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	wrap := func(b drivers.Backend) drivers.Backend {
		f := faulty.Wrap(b)
		f.SetHook(func(c faulty.Call) faulty.Action {
			if calls.Add(1) == k {
				cancel()
			}
			return faulty.Pass()
		})
		return f
	}
	line := []string{"--pool", v.pool}
	for _, a := range args {
		if strings.HasPrefix(a, "out.") {
			a = v.path(a)
		}
		line = append(line, a)
	}
	r := inProcessWith(t, ctx, v, wrap, line...)
	return calls.Load(), r, v
}

// sound fails if a command left anything half done in a pool: a name that it makes is there only as a whole, and gc removes all else.
func (w *world) sound(made string, done bool) {
	w.t.Helper()
	names := w.names()
	if done && made != "" && !strings.Contains(names, " "+made+" ") {
		w.t.Errorf("it succeeded, and there is no %s:%s", made, names)
	}
	// A copy with its snapshots is there whole or not at all.
	all := strings.Replace(names, " new new@a new@b ", " new ", 1)
	if rest := strings.Replace(all, " "+made+" ", " ", 1); rest != " kid other other@a other@b spare spare@a vm1 vm1@a vm1@b " {
		w.t.Errorf("the pool has%s", names)
	}
	if out := w.ok("check"); strings.Contains(out, "damage") {
		w.t.Errorf("check: %s", out)
	}
	if !done && w.run(nil, "info", made).code == 10 {
		w.run(nil, "rm", made) // an interrupted copy is kept
	}
	w.ok("gc", "-q")
	if out := w.ok("check"); out != "" {
		w.t.Errorf("check after gc: %s", out)
	}
	w.has("vm1", noise(mib, 1))
	w.has("vm1@b", noise(mib, 1))
}

// names returns the volumes and snapshots of a pool, in order, each between spaces.
func (w *world) names() string {
	w.t.Helper()
	type named struct{ Name string }
	list := func(args ...string) (all []named) {
		w.t.Helper()
		if err := json.Unmarshal([]byte(w.ok(append(args, "--json")...)), &all); err != nil {
			w.t.Fatal(err)
		}
		return all
	}
	s := " "
	for _, v := range list("ls") {
		s += v.Name + " "
		for _, snap := range list("ls", v.Name) {
			s += v.Name + "@" + snap.Name + " "
		}
	}
	return s
}

// written fails unless a file is as it should be after an export: whole or not there, and nothing beside it.
func (w *world) written(name string, done bool) {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	there := false
	for _, e := range entries {
		switch {
		case e.Name() == name:
			there = true
		case strings.Contains(e.Name(), "out"):
			w.t.Errorf("%s is left", e.Name())
		}
	}
	if done && !there {
		w.t.Errorf("%s is not there", name)
	}
	if !there || strings.HasSuffix(name, ".delta") {
		return
	}
	w.tool("qemu-img", "convert", "-O", "raw", w.path(name), w.path("again"))
	if b, err := os.ReadFile(w.path("again")); err != nil || !bytes.Equal(b, noise(mib, 1)) {
		w.t.Errorf("%s is not what it should be: %v", name, err)
	}
}

// TestSignals sends signals to commands that wait for a pipe, once they have begun.
func TestSignals(t *testing.T) {
	w := newPool(t)
	w.put("big", noise(8*mib, 1))
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, args := range []string{"import - new --size 1G --chunk-size 64K --json", "export big - --json"} {
			t.Run(fmt.Sprintf("%v %s", sig, args), func(t *testing.T) {
				c := w.command(strings.Fields(args)...)
				stdin, err := c.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				stdout, err := c.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				stderr, err := c.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				lines := bufio.NewScanner(stderr)
				if strings.HasPrefix(args, "import") {
					if _, err := stdin.Write(noise(4*mib, 3)); err != nil {
						t.Fatal(err)
					}
					if !lines.Scan() || !strings.Contains(lines.Text(), "progress") {
						t.Fatalf("no progress: %q", lines.Text())
					}
				} else if _, err := stdout.Read(make([]byte, 1)); err != nil { // and nobody reads on
					t.Fatal(err)
				}
				if err := c.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				last := ""
				for lines.Scan() {
					last = lines.Text()
				}
				_ = c.Wait() // says the exit code
				if c.ProcessState.ExitCode() != 130 || !strings.Contains(last, `"exit":130`) || !strings.Contains(last, `"next":`) {
					t.Errorf("%v, %s", c.ProcessState, last)
				}
				if names := w.names(); names != " big " {
					t.Errorf("the pool has%s", names)
				}
				if out := w.ok("check"); out != "" {
					t.Errorf("check: %s", out)
				}
			})
		}
	}
}

// TestSecondSignalEndsAtOnce opens a pipe that nobody writes, which the first signal does not interrupt.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	w := newPool(t)
	if err := syscall.Mkfifo(w.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := w.command("import", w.path("fifo"), "new", "--size", "1M")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // says how it was ended
	}()
	for over := false; !over; {
		_ = c.Process.Signal(syscall.SIGINT) // fails once it has ended
		select {
		case <-ended:
			over = true
		default:
			runtime.Gosched()
		}
	}
	if status := c.ProcessState.Sys().(syscall.WaitStatus); !(status.Signaled() && status.Signal() == syscall.SIGINT) && c.ProcessState.ExitCode() != 130 {
		t.Errorf("%v", c.ProcessState)
	}
}
