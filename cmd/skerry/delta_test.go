package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// TestIncrementalBackup: a full copy once, then deltas through files and a pipe while the volume is served.
func TestIncrementalBackup(t *testing.T) {
	w := newPool(t)
	content := noise(9*mib, 1)
	w.put("vm1", content)
	w.ok("snapshot", "-q", "vm1@monday")
	other := w.path("other")
	w.ok("init", "-q", "--pool", other)
	backup := other + "/vm1"
	w.ok("copy", "-q", "vm1@monday", backup, "--snapshots", "--chunk-size", "256K")
	w.fails(2, "volume", "export", "vm1", "x", "--from", "@monday")
	w.fails(2, "zstd", "export", "vm1@monday", "x", "--from", "@monday", "--compress", "zlib")
	w.fails(10, "sunday", "export", "vm1@monday", "x", "--from", "@sunday")

	s := w.serve(1, "vm1", "--nbd", "unix:"+w.path("sock"))
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write -z 2M 1M", "-c", "write -P 7 8M 64k", s.uris[0]).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	copy(content[2*mib:], make([]byte, mib))
	for i := range 64 << 10 {
		content[8*mib+i] = 7
	}
	w.ok("snapshot", "-q", "vm1@tuesday")
	var e struct{ Data, Zero int64 }
	if err := json.Unmarshal([]byte(w.ok("export", "--json", "vm1@tuesday", w.path("delta"), "--from", "@monday", "--compress", "zstd")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Data != 64<<10 || e.Zero != mib {
		t.Errorf("%+v", e)
	}
	if st, err := os.Stat(w.path("delta")); err != nil || st.Size() > 10<<10 {
		t.Errorf("%v, %v", st, err)
	}
	w.fails(12, "force", "export", "vm1@tuesday", w.path("delta"), "--from", "@monday")
	s.stop()

	w.fails(10, "vm2 not found", "import", w.path("delta"), "--onto", "vm2")
	w.fails(2, "size", "import", w.path("delta"), "--onto", backup, "--size", "1G")
	w.fails(2, "rollback", "import", w.path("delta"), "vm2", "--rollback")
	w.fails(1, "onto", "import", w.path("delta"), "vm2")
	w.ok("import", "-q", w.path("delta"), "--onto", backup)
	w.has(backup, content)
	w.has(backup+"@tuesday", content)
	w.ok("import", "-q", w.path("delta"), "--onto", backup) // once more changes nothing
	if a, b := w.ok("hash", "vm1@tuesday"), w.ok("hash", backup+"@tuesday"); a[:40] != b[:40] {
		t.Errorf("%s, %s", a, b)
	}

	w.ok("snapshot", "-q", "vm1@wednesday")
	pipe := exec.Command("sh", "-c", binary+" export -q vm1@wednesday - --from @tuesday | "+binary+" import -q - --onto "+backup)
	pipe.Env, pipe.Dir = w.env, w.dir
	if out, err := pipe.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.has(backup, content)

	// Who writes the backup has to say that this is to be lost.
	w.ok("snapshot", "-q", "vm1@thursday")
	w.ok("export", "-q", "vm1@thursday", w.path("thursday"), "--from", "@wednesday")
	s = w.serve(1, backup, "--nbd", "unix:"+w.path("sock"))
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write -P 9 0 4k", s.uris[0]).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.fails(13, "leased process", "import", w.path("thursday"), "--onto", backup)
	s.stop()
	w.fails(1, "written rollback", "import", w.path("thursday"), "--onto", backup)
	w.ok("import", "-q", w.path("thursday"), "--onto", backup, "--rollback")
	w.has(backup, content)
	b, err := os.ReadFile(w.path("thursday"))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1]++
	if err := os.WriteFile(w.path("broken"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.ok("rm", "-q", backup+"@thursday")
	w.fails(16, "delta damaged", "import", w.path("broken"), "--onto", backup)
	w.ok("gc", "-q", "--pool", other)
	if out := w.ok("check", "--pool", other); out != "" {
		t.Errorf("check: %s", out)
	}
}
