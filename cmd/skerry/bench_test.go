package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/drivers/local"
	"skerry/locking"
	"skerry/mapper"
	"skerry/nbd/client"
)

// bench is a pool for benchmarks and the way to run the program on it.
type bench struct {
	tb      testing.TB
	dir     string
	pool    string
	program string // without the race detector, which takes several times the memory and the time
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	dir, err := os.MkdirTemp("", "sk-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bench{tb: tb, dir: dir, pool: filepath.Join(dir, "pool"), program: binary}
	if raceEnabled {
		b.program = filepath.Join(dir, "program")
		if out, err := exec.Command("go", "build", "-o", b.program, ".").CombinedOutput(); err != nil {
			tb.Fatalf("%v\n%s", err, out)
		}
	}
	b.run("init", "-q")
	return b
}

func (b *bench) command(args ...string) *exec.Cmd {
	c := exec.Command(b.program, args...)
	c.Env = append(os.Environ(), "SKERRY_POOL="+b.pool, "XDG_RUNTIME_DIR="+b.dir, "XDG_CONFIG_HOME="+b.dir, "HOME="+b.dir)
	return c
}

// run runs a command to its end and returns the time that it took as a process.
func (b *bench) run(args ...string) time.Duration {
	b.tb.Helper()
	start := time.Now()
	if out, err := b.command(args...).CombinedOutput(); err != nil {
		b.tb.Fatalf("skerry %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return time.Since(start)
}

// serve starts a server for one volume. It returns how long that took until it was ready, a connection, the process, and
// the function that ends it.
func (b *bench) serve(name string) (time.Duration, *client.Client, *os.Process, func()) {
	b.tb.Helper()
	socket := filepath.Join(b.dir, name+".sock")
	c := b.command("serve", name, "--nbd", "unix:"+socket)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		b.tb.Fatal(err)
	}
	start := time.Now()
	if err := c.Start(); err != nil {
		b.tb.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.tb.Fatalf("serve %s: %v", name, err)
	}
	ready := time.Since(start)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		b.tb.Fatal(err)
	}
	nbd, err := client.New(context.Background(), conn, client.Options{Export: name, Structured: true})
	if err != nil {
		b.tb.Fatal(err)
	}
	return ready, nbd, c.Process, func() {
		if err := nbd.Close(); err != nil {
			b.tb.Error(err)
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			b.tb.Error(err)
		}
		if err := c.Wait(); err != nil {
			b.tb.Errorf("serve %s: %v", name, err)
		}
	}
}

// memory returns a number of /proc/PID/status in bytes: VmRSS or VmHWM.
func memory(tb testing.TB, p *os.Process, what string) int64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kib << 10
		}
	}
	tb.Fatalf("no %s", what)
	return 0
}

// fullVolume makes a volume of 4 TiB whose map is full: each chunk has an object of its own. The objects are empty, which
// makes no difference to anything but reading them.
func (b *bench) fullVolume(name string) {
	b.tb.Helper()
	const size = 4 << 40
	ctx := context.Background()
	backend, err := local.Open(b.pool)
	if err != nil {
		b.tb.Fatal(err)
	}
	engine := drivers.NewEngine(backend, drivers.Options{MaxHandles: 64})
	identity, err := locking.LocalIdentity()
	if err != nil {
		b.tb.Fatal(err)
	}
	holder := locking.NewInstance(engine, identity, locking.Options{})
	geom, err := chunk.NewGeometry(chunk.DefaultSize)
	if err != nil {
		b.tb.Fatal(err)
	}
	id := chunk.NewVolumeID()
	lease, err := holder.Create(ctx, &mapper.Root{
		Volume: id, State: mapper.Live, Name: name, Size: size, Geometry: geom, Owners: []chunk.VolumeID{id}, Created: time.Now(),
	})
	if err != nil {
		b.tb.Fatal(err)
	}
	c := engine.Client(drivers.LaneBackground, 1, nil)
	m := mapper.New(c, id, geom, size, []chunk.VolumeID{id}, nil, 0, 1<<30)
	for i := range geom.Count(size) {
		s, err := lease.NextSerial()
		if err != nil {
			b.tb.Fatal(err)
		}
		path := filepath.Join(b.pool, chunk.DataName(id, i, s))
		if i%(1<<16) == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.tb.Fatal(err)
			}
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			b.tb.Fatal(err)
		}
		if _, err := m.Publish(ctx, i, s, 0, geom.Blocks(), false, nil); err != nil {
			b.tb.Fatal(err)
		}
	}
	capture := m.Capture()
	err = capture.Store(lease.NextSerial, func(name string, p []byte) error {
		if err := c.Create(ctx, name); err != nil {
			return err
		}
		return c.WriteAt(ctx, name, p, 0)
	})
	if err != nil {
		b.tb.Fatal(err)
	}
	owners, pages := capture.Refs()
	if err := lease.Release(ctx, func(r *mapper.Root) { r.Owners, r.Pages = owners, pages }); err != nil {
		b.tb.Fatal(err)
	}
	record := mapper.NameRecord{Name: name, Volume: id}
	if err := c.Replace(ctx, chunk.NameRecord(name), record.Encode(), drivers.Condition{Absent: true}); err != nil {
		b.tb.Fatal(err)
	}
	if err := holder.Close(ctx); err != nil {
		b.tb.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		b.tb.Fatal(err)
	}
}

// BenchmarkFullVolume times commands, as processes, on a volume of 4 TiB with a full map, and what opening it for serving costs beside
// a volume that is empty.
func BenchmarkFullVolume(b *testing.B) {
	p := newBench(b)
	p.fullVolume("full")
	p.run("create", "empty", "--size", "4T")
	var sums [5]time.Duration
	var opening, openingEmpty time.Duration
	var extra int64
	n := 0
	for b.Loop() {
		n++
		sums[0] += p.run("clone", "full", "c")
		sums[1] += p.run("snapshot", "full@s")
		sums[2] += p.run("rollback", "full@s")
		sums[3] += p.run("rm", "full@s")
		sums[4] += p.run("rm", "c")
		full, nbd, process, end := p.serve("full")
		if err := nbd.Read(make([]byte, 4096), 1<<40); err != nil {
			b.Fatal(err)
		}
		rss := memory(b, process, "VmRSS")
		end()
		empty, nbd, process, end := p.serve("empty")
		if err := nbd.Read(make([]byte, 4096), 1<<40); err != nil {
			b.Fatal(err)
		}
		extra += rss - memory(b, process, "VmRSS")
		end()
		opening, openingEmpty = opening+full, openingEmpty+empty
	}
	report := func(d time.Duration, unit string) {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(n), unit)
	}
	for i, name := range []string{"clone", "snapshot", "rollback", "rm-snapshot", "rm-clone"} {
		report(sums[i], name+"-ms")
	}
	report(opening, "serve-ms")
	report(openingEmpty, "serve-empty-ms")
	b.ReportMetric(float64(extra)/(1<<20)/float64(n), "extra-MiB")
	b.ReportMetric(float64(p.run("rm", "full").Microseconds())/1000, "rm-ms")
}

// busy drives a connection with random 4 KiB reads and writes at a depth, and a flush now and then.
func busy(tb testing.TB, nbd *client.Client, size int64, requests, depth int) {
	var wg sync.WaitGroup
	for i := range depth {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			p := make([]byte, 4096)
			for k := range requests / depth {
				off := rng.Int64N(size/4096) * 4096
				var err error
				switch {
				case k%64 == 63:
					err = nbd.Flush()
				case k%3 == 0:
					err = nbd.Read(p, off)
				default:
					err = nbd.Write(p, off, 0)
				}
				if err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestServeOfABusyVolumeNeedsLittleMemory drives 64 requests at a time over a volume of which every chunk is written in part.
func TestServeOfABusyVolumeNeedsLittleMemory(t *testing.T) {
	p := newBench(t)
	p.run("create", "vm", "--size", "8G")
	_, nbd, process, end := p.serve("vm")
	defer end()
	busy(t, nbd, 8<<30, 30_000, 64)
	peak := memory(t, process, "VmHWM")
	t.Logf("peak %d MiB", peak>>20)
	if peak > 150<<20 {
		t.Errorf("peak memory is %d MiB, want at most 150", peak>>20)
	}
}
