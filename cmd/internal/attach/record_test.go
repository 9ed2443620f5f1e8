package attach

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheKernelsIdentifierTellsTheTarget(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for _, c := range []Target{
		{Pool: "file:///var/lib/skerry", ID: id},
		{Pool: "file:///with%20blank", ID: id, Snapshot: "s", Created: time.Unix(1700000000, 123456789).UTC()},
		{URI: "nbd://[::1]:10809/vm1"},
		{URI: "nbd+unix:///vm1?socket=/run/a%20b"},
	} {
		got, ok := parseBackend(c.backend())
		if !ok || got != c || got.identity() != c.identity() || got.key() != c.key() {
			t.Errorf("%q: %+v, %v, want %+v", c.backend(), got, ok, c)
		}
	}
	for _, other := range []string{"", "skerry", "skerry/", "qemu", "Skerry/x", "skerry/ file:///x", "skerry/" + id + "@s file:///x", "skerry/" + id + "@s@soon file:///x"} {
		if got, ok := parseBackend(other); ok {
			t.Errorf("%q: %+v", other, got)
		}
	}
}

func TestURIs(t *testing.T) {
	for in, want := range map[string]string{
		"nbd://host/vm1":                   "nbd://host:10809/vm1",
		"nbd://[::1]:5/":                   "nbd://[::1]:5/",
		"nbd+unix:///a@b?socket=/run/../s": "nbd+unix:///a@b?socket=/s",
		"nbd+unix:///?socket=/a%20b+c%2B":  "nbd+unix:///?socket=/a%20b%20c%2B",
	} {
		if got, err := ParseURI(in); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		} else if again, err := ParseURI(got); err != nil || again != got {
			t.Errorf("%s: %q, %v, the second time", got, again, err)
		}
	}
	for _, in := range []string{"nbd:///vm1", "nbd+unix:///vm1", "nbd+unix:///vm1?socket=s", "nbds://host/vm1", "http://host/", "nbd://%zz"} {
		if got, err := ParseURI(in); err == nil {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	h := &Host{Dir: filepath.Join(t.TempDir(), "run", "attach")}
	if err := h.makeDir(); err != nil {
		t.Fatal(err)
	}
	r := Record{Target: Target{Pool: "file:///p", Volume: "vm1", ID: "1"}, Connections: 2, Dead: time.Hour, Server: Server{Own: true, URI: "nbd+unix:///vm1?socket=/s"}}
	if err := h.save(r); err != nil {
		t.Fatal(err)
	}
	if got, err := h.load(r.key()); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	path := h.files(r.key()).record
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", string(good[:len(good)/2]), strings.Replace(string(good), `"id": "1"`, `"id": "2"`, 1), strings.Replace(string(good), `"connections": 2`, `"connections": 0`, 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := h.load(r.key()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
		if all, err := h.records(); err == nil || len(all) != 0 {
			t.Errorf("%q: %+v, %v", bad, all, err)
		}
	}
	if err := h.forget(r.key()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.load(r.key()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.Chmod(h.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.makeDir(); err == nil {
		t.Error("records where others can read")
	}
}

func TestProcessesAreNotMistaken(t *testing.T) {
	me, err := self()
	if err != nil || !me.alive() {
		t.Fatalf("%+v, %v", me, err)
	}
	other := Process{PID: me.PID, Life: me.Life + 1} // had the number before
	if other.alive() {
		t.Error("a process that began at another time")
	}
	if err := other.end(t.Context(), unix.SIGKILL); err != nil { // would end this one
		t.Error(err)
	}
	if (Process{}).alive() {
		t.Error("no process is alive")
	}
}
