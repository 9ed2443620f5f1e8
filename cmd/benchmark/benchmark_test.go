package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var seed = flag.Uint64("benchmark.seed", 0, "seed of the random tests; 0 takes a new one")

// TestMain is also the program that a comparison starts for the server without storage, and for the slow one.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-serve-null") || slices.Contains(os.Args, "-show-slow") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("12 (a) (b c) S 7 12 12 0 -1 4194560 1 2 3 4 100 50 7 3 20 0 1 0 5 6 7"))
	if err != nil || s.pid != 12 || s.parent != 7 || s.cpu != 1600*time.Millisecond {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, text := range []string{"", "12", "12 (a", ") 12 (", "x (a) S 7", "12 (a) S 7 1 2", "12 (a) S 7 12 12 0 -1 4194560 1 2 3 4 x 50 7 3 20"} {
		if s, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: got %+v", text, s)
		}
	}
}

func TestParsePeak(t *testing.T) {
	if n, err := parsePeak("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t   1234 kB\n"); err != nil || n != 1234<<10 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := parsePeak("VmHWM:\t1234\n"); err == nil {
		t.Error("took a number without its unit")
	}
}

func TestTreeOfAProcess(t *testing.T) {
	c := exec.Command("sh", "-c", "sleep 1000 & echo up; wait") // a process and its child
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = out.Read(make([]byte, 1))
	tree, terr := processTree(c.Process.Pid)
	peak, perr := treeMemory(c.Process.Pid)
	if err := errors.Join(err, terr, perr, resetPeaks(c.Process.Pid)); err != nil || len(tree) != 2 || peak == 0 {
		t.Errorf("got %+v with %d bytes, %v", tree, peak, err)
	}
	for _, p := range tree {
		process, err := os.FindProcess(p.pid)
		if err == nil {
			err = process.Kill()
		}
		if err != nil {
			t.Error(err)
		}
	}
	_ = c.Wait() // it was killed
	if _, err := processTree(c.Process.Pid); err == nil {
		t.Error("a process that has ended has a tree")
	}
}

func TestSpread(t *testing.T) {
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	rng := rand.New(rand.NewPCG(n, 0))
	for count := 1; count < 8; count++ {
		values := make([]float64, count)
		for i := range values {
			values[i] = rng.Float64()
		}
		s := spreadOf(values)
		below, above := 0, 0
		for _, v := range values {
			if v < s.Median {
				below++
			}
			if v > s.Median {
				above++
			}
		}
		if below != above || s.Min != slices.Min(values) || s.Max != slices.Max(values) {
			t.Errorf("-benchmark.seed=%d: %v of %v", n, s, values)
		}
	}
	if spreadOf(nil) != (spread{}) {
		t.Error("nothing has a spread")
	}
}

func TestParseProfile(t *testing.T) {
	got := parseProfile(`# Samples: 3  of event 'cpu-clock'
#
    67.69%  [k] chacha_permute                -      -
     3.08%  [.] skerry/volume.(*Device).Submit
     0.50%  [.] too_little
`)
	want := []hotspot{{67.69, true, "chacha_permute"}, {3.08, false, "skerry/volume.(*Device).Submit"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// some is a report of made-up numbers.
func some() *report {
	values := func(peer string, v ...float64) peerReport {
		p := peerReport{Peer: peer}
		for _, x := range v {
			p.Samples = append(p.Samples, sample{Value: x, P50: 10, P99: 20, P999: 30, ServerCPU: 5})
		}
		return p
	}
	return &report{Rows: []rowReport{
		{ID: "read-4k-16", Title: "reads <16>", Group: "random-read", Unit: iops, Peers: []peerReport{
			values(skerry, 100, 300, 200), values(nbdkit, 100, 100, 100), values(qemuRaw, 400, 300, 500), values(plainFile, 9000, 9000, 9000),
		}},
		{ID: "import", Title: "import", Group: "import", Unit: seconds, Peers: []peerReport{values(skerry, 2, 2, 2), values(cp, 1, 1, 1)}},
	}}
}

func TestRatioIsThatOfMedians(t *testing.T) {
	r := some()
	for _, c := range []struct {
		row, peer string
		want      spread
	}{
		{"read-4k-16", nbdkit, spread{2, 1, 3}},
		{"read-4k-16", qemuRaw, spread{0.5, 0.25, 1}},
		{"import", cp, spread{0.5, 0.5, 0.5}}, // seconds: less is better
	} {
		if s, ok := r.row(c.row).ratio(c.peer); !ok || s != c.want {
			t.Errorf("%s against %s: got %v, want %v", c.row, c.peer, s, c.want)
		}
	}
	if _, ok := r.row("import").ratio(nbdkit); ok {
		t.Error("there is a ratio to a peer that was not measured")
	}
}

func TestVerdicts(t *testing.T) {
	var got []string
	for _, v := range some().verdicts() {
		got = append(got, v.row+" "+v.peer+" "+map[bool]string{true: "reached", false: "missed"}[v.reached])
	}
	if want := []string{"reads <16> " + nbdkit + " reached", "import " + cp + " missed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDocumentShowsWherePeersWin(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "benchmarks.md")
	if err := some().document(dir); err == nil {
		t.Error("wrote a document that was not there")
	}
	if err := os.WriteFile(path, []byte("above\n"+begin+"\nold\n"+end+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time what the first wrote is replaced
		if err := some().document(dir); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"above\n" + begin, end + "\nbelow\n", "| 0.50 (0.25–1.00), **the peer wins** |", "- reads <16>: qemu-nbd raw is 2.00 times as fast",
		"| import | cp --sparse=always; sync | 0.7 times | 0.50 (0.50–0.50) | **missed** |", "200/s (100–300)", "(benchmarks/random-read.svg)",
	} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("what was measured before is still there")
	}
	svg, err := os.ReadFile(filepath.Join(dir, "benchmarks", "random-read.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
	if s := string(svg); strings.Count(s, "<rect") != 3 || strings.Count(s, "wins</text>") != 1 || !strings.Contains(s, "prefers-color-scheme: dark") {
		t.Errorf("got %s", svg)
	}
}

// TestComparison measures a row of each sort on tiny disks.
func TestComparison(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "skerry")
	if out, err := exec.Command("go", "build", "-o", program, "../skerry").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	docs := filepath.Join(dir, "docs")
	err := os.Mkdir(docs, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(docs, "benchmarks.md"), []byte(begin+"\n"+end+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	args := []string{"-skerry", program, "-dir", dir, "-out", docs, "-size", "8M", "-rounds", "2", "-requests", "200",
		"-rows", "read-4k-16|write-64k|flush-8|clone|sparse|write-4k-4x16|import$|null-read-4k|slow-read"}
	if err := run(t.Context(), args, io.Discard, &progress); err != nil {
		t.Fatalf("%v\n%s; scripts/deps.sh installs the peers", err, &progress)
	}
	text, err := os.ReadFile(filepath.Join(docs, "benchmarks", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 12 {
		t.Errorf("%d of 12 rows were measured", len(r.Rows))
	}
	for _, row := range r.Rows {
		if len(row.Peers) < 2 && row.ID != "slow-read-4k-64" {
			t.Errorf("%s has %d peers", row.ID, len(row.Peers))
		}
		for _, p := range row.Peers {
			for _, s := range p.Samples {
				if s.Value <= 0 {
					t.Errorf("%s: %s: %+v", row.ID, p.Peer, s)
				}
			}
			if len(p.Samples) != 2 || p.Peer == skerry && row.ID != "import" && row.ID != "slow-read-4k-64" && (p.Samples[0].Allocs == nil || p.Samples[0].Memory == 0) {
				t.Errorf("%s: %+v", row.ID, p)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "skb-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %q, %v", left, err)
	}
	if err := run(t.Context(), []string{"-render", "-out", docs}, io.Discard, &progress); err != nil {
		t.Error(err)
	}
}

func TestWrongOptions(t *testing.T) {
	for _, args := range [][]string{
		{"-size", "1"}, {"-size", "4KB"}, {"-rounds", "-1"}, {"-seconds", "-1"}, {"-rows", "("}, {"-render"}, {"more"}, {"-bogus"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("took %q", args)
		}
	}
}
