package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inGuest tells the test program that it runs in the guest; see guest_test.go.
const inGuest = "SKERRY_TEST_IN_GUEST"

func TestMain(m *testing.M) {
	if os.Getenv(inGuest) != "" {
		os.Exit(guestMain())
	}
	os.Exit(m.Run())
}

// units returns the templates of this directory.
func units(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.service", "*.socket"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	if len(all) < 4 {
		t.Fatalf("only %d units", len(all))
	}
	return all
}

// install puts the units into a directory, for a program that lies in bin.
func install(t *testing.T, dir, bin string) {
	t.Helper()
	for _, name := range units(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), "@bindir@", bin))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSystemdUnderstandsTheUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: run scripts/deps.sh clients")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "skerry"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, dir, dir)
	verify := func(units ...string) string {
		c := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...)
		c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	var all []string
	for _, name := range units(t) {
		all = append(all, filepath.Join(dir, name))
	}
	if out := verify(all...); out != "" {
		t.Error(out)
	}
	bad := filepath.Join(dir, "bad@.service")
	if err := os.WriteFile(bad, []byte("[Service]\nType=notify\nExecStart=/no/such/program\nNonsense=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := verify(bad); !strings.Contains(out, "Nonsense") || !strings.Contains(out, "/no/such/program") {
		t.Errorf("a bad unit passes: %s", out)
	}
}

// build makes a program for the guest, without the race detector.
func build(t *testing.T, args ...string) {
	t.Helper()
	c := exec.Command("go", args...)
	c.Dir = filepath.Join("..", "..")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// In a guest systemd starts a server, starts it again when it is killed, and ends it; guest_test.go has what happens there.
func TestServersUnderSystemdInAGuest(t *testing.T) {
	dir := t.TempDir()
	build(t, "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "skerry"), "./cmd/skerry")
	build(t, "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(dir, "test"), "./scripts/systemd")
	install(t, dir, "/usr/bin")
	script := `#!/bin/bash
set -e
cp /mnt/skerry /usr/bin/
cp /mnt/skerry-*@.* /etc/systemd/system/
# The kernel sends a request that a dead server had again only when its time is over.
mkdir /etc/systemd/system/skerry-attach@.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/bin/skerry attach --foreground --request-timeout 3s -- %%I\n' \
	>/etc/systemd/system/skerry-attach@.service.d/quick.conf
systemctl daemon-reload
export ` + inGuest + `=1
/mnt/test
`
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("./guest.sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
