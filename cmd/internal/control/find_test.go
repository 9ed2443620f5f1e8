package control

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProcessesThatAnswerAreFound(t *testing.T) {
	h := &fakeHolds{}
	dir := filepath.Dir(start(t, h))
	// Of a dead process, of another program, and something else.
	for _, name := range []string{"7-dead.sock", "other"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "8-file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := Processes(t.Context(), dir)
	if err != nil || cmp.Diff(found, []Process{h.Process()}) != "" {
		t.Errorf("found %+v, %v", found, err)
	}
	if found, err := Processes(t.Context(), filepath.Join(dir, "missing")); err != nil || found != nil {
		t.Errorf("without a directory: %+v, %v", found, err)
	}
}
