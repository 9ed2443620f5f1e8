package load_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/load"
	"skerry/nbd/nbdtest"
	"skerry/volume"
)

// verifying is a load that writes and checks, in a range that it has filled before.
func verifying(count int64) load.Config {
	c := config(count)
	c.Mix, c.Verify, c.Fill = load.Mix{Read: 50, Write: 40, Zero: 10}, true, true
	return c
}

const blocks = 256 // of the exports below

// TestVerifyFindsWrongData lets servers lie, once the range has been filled.
func TestVerifyFindsWrongData(t *testing.T) {
	nth := func(d *tally, r *volume.Request, kind volume.Kind, n int64) bool {
		return r.Kind == kind && d.kinds[kind].Load() == n
	}
	for name, c := range map[string]struct {
		drop  func(d *tally, r *volume.Request) bool
		spoil func(d *tally, r *volume.Request)
		want  string
	}{
		"a write is lost": {
			drop: func(d *tally, r *volume.Request) bool { return nth(d, r, volume.Write, blocks+50) },
			want: "has old data, version 1 of it, want version 2",
		},
		"zeroing is lost": {
			drop: func(d *tally, r *volume.Request) bool { return r.Kind == volume.WriteZeroes },
			want: "want zeros",
		},
		"a read comes from elsewhere": {
			spoil: func(d *tally, r *volume.Request) {
				if nth(d, r, volume.Read, 20) {
					other := volume.Request{Kind: volume.Read, Offset: (r.Offset + 4096) % (blocks * 4096), Length: r.Length, Data: r.Data}
					r.Err = d.Do(&other)
				}
			},
			want: "has data of offset",
		},
		"a block is torn": {
			spoil: func(d *tally, r *volume.Request) {
				if nth(d, r, volume.Read, 20) {
					clear(r.Data[512:])
				}
			},
			want: "has zeros, want version",
		},
		"a bit is flipped": {
			spoil: func(d *tally, r *volume.Request) {
				if nth(d, r, volume.Read, 20) {
					r.Data[4095] ^= 1
				}
			},
			want: "has damaged or foreign data, want version",
		},
	} {
		d := &tally{Memory: nbdtest.NewMemory(blocks * 4096)}
		if c.drop != nil {
			d.drop = func(r *volume.Request) bool { return c.drop(d, r) }
		}
		if c.spoil != nil {
			d.spoil = func(r *volume.Request) error { c.spoil(d, r); return nil }
		}
		config := verifying(20_000)
		if c.want != "want zeros" {
			config.Mix = load.Mix{Read: 50, Write: 50} // the sector that is hit must hold data
		}
		_, err := load.Run(t.Context(), serve(t, d), config)
		if !errors.Is(err, load.ErrMismatch) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want: %s", name, err, c.want)
		}
	}
}

func TestVerifyChecksWhatAnEarlierRunWrote(t *testing.T) {
	m := nbdtest.NewMemory(blocks * 4096)
	dial := serve(t, m)
	if _, err := load.Run(t.Context(), dial, verifying(1000)); err != nil {
		t.Fatal(err)
	}
	reads := config(0)
	reads.Mix, reads.Verify, reads.Pattern = load.Mix{Read: 100}, true, load.Shuffle
	r, err := load.Run(t.Context(), dial, reads)
	if err != nil || r.Requests != blocks || r.Verified != 0 || r.Earlier == 0 || r.Foreign == 0 || r.Earlier+r.Foreign != blocks {
		t.Errorf("got %+v, %v", r, err)
	}
	p := make([]byte, 512)
	for off := int64(0); p[0] == 0; off += 4096 { // a block that holds data
		if err := m.Do(&volume.Request{Kind: volume.Read, Offset: off, Length: 512, Data: p}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Do(&volume.Request{Kind: volume.Write, Offset: blocks*4096 - 512, Length: 512, Data: p}); err != nil {
		t.Fatal(err)
	}
	if _, err := load.Run(t.Context(), dial, reads); !errors.Is(err, load.ErrMismatch) || !strings.Contains(err.Error(), "has data of offset") {
		t.Errorf("got %v", err)
	}
}

// TestVerifyAgainstNbdkit holds the load against another server: one that keeps data, and one that does not.
func TestVerifyAgainstNbdkit(t *testing.T) {
	for plugin, right := range map[string]bool{"memory": true, "null": false} {
		socket := filepath.Join(t.TempDir(), "s")
		cmd := exec.Command("nbdkit", "-f", "-U", socket, "--exit-with-parent", plugin, "4M")
		cmd.Stderr = os.Stderr
		dial := startNbdkit(t, cmd, socket)
		c := verifying(5000)
		c.FlushEvery, c.Conns = 16, 2
		r, err := load.Run(t.Context(), dial, c)
		if right && (err != nil || r.Verified == 0) {
			t.Errorf("%s: got %+v, %v", plugin, r, err)
		}
		if !right && !errors.Is(err, load.ErrMismatch) {
			t.Errorf("%s: got %v, want wrong data", plugin, err)
		}
	}
}

// startNbdkit runs nbdkit until the test ends and returns how to connect to it.
func startNbdkit(t *testing.T, cmd *exec.Cmd, socket string) func(context.Context) (*client.Client, error) {
	t.Helper()
	pid := socket + ".pid"
	cmd.Args = append([]string{cmd.Args[0], "-P", pid}, cmd.Args[1:]...)
	// It writes the file when clients can connect; a pipe in its place tells when.
	if err := exec.Command("mkfifo", pid).Run(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; install it with scripts/deps.sh", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := os.ReadFile(pid); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (*client.Client, error) {
		return client.Dial(ctx, "unix", socket, client.Options{TryStructured: true})
	}
}

func TestFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(blocks * 4096); err != nil {
		t.Fatal(err)
	}
	c := verifying(5000)
	c.Mix, c.FlushEvery, c.Conns = load.Mix{Read: 50, Write: 50}, 100, 2
	r, err := load.RunFile(t.Context(), f, c)
	if err != nil || r.Requests != c.Count || r.Verified == 0 || len(r.Kinds) != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
	c.FlushEvery = 0
	if r, err := load.RunFile(t.Context(), f, c); err != nil || r.Requests != c.Count {
		t.Errorf("got %+v, %v", r, err)
	}
	c.Mix = load.Mix{Zero: 100}
	if _, err := load.RunFile(t.Context(), f, c); !errors.Is(err, load.ErrUnfit) {
		t.Errorf("zeroing a file: got %v", err)
	}
}

// BenchmarkCeiling is the load against our own server before a device that does nothing, both in one process.
func BenchmarkCeiling(b *testing.B) {
	dial := serve(b, nbd.Device(nbdtest.Null(1<<30)))
	for name, mix := range map[string]load.Mix{"read": {Read: 100}, "write": {Write: 100}, "mixed": {Read: 70, Write: 30}} {
		b.Run(name, func(b *testing.B) {
			c := config(int64(b.N))
			c.Mix, c.Depth = mix, 64
			b.SetBytes(c.Block)
			b.ReportAllocs()
			if _, err := load.Run(context.Background(), dial, c); err != nil {
				b.Fatal(err)
			}
		})
	}
}
