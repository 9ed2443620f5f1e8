package process

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// begun makes the test program one that begins itself anew; its value says whether a signal comes before.
const begun = "SKERRY_TEST_BEGIN_ANEW"

func TestMain(m *testing.M) {
	switch os.Getenv(begun) {
	case "":
		os.Exit(m.Run())
	case "again":
		print("begun anew")
		os.Exit(0)
	}
	ctx, signals := NotifyContext(context.Background(), unix.SIGTERM)
	if os.Getenv(begun) == "signal" {
		interrupt()
	}
	if err := os.Setenv(begun, "again"); err != nil {
		panic(err)
	}
	print(beginAnew(ctx, signals).Error())
}

// interrupt sends a signal to this thread, which has it when this returns.
func interrupt() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTERM); err != nil {
		panic(err)
	}
}

// TestASignalBeforeTheProgramBeginsAnewIsNotForgotten: the new program would know nothing of it, and who sent it would wait for ever.
func TestASignalBeforeTheProgramBeginsAnewIsNotForgotten(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]string{"none": "begun anew", "signal": "terminated signal received"} {
		c := exec.CommandContext(t.Context(), program)
		c.Env = append(os.Environ(), begun+"="+when)
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, %v", when, out, err)
		}
	}
}

func TestASignalBeforeStopEndsTheContext(t *testing.T) {
	for range 1000 {
		ctx, signals := NotifyContext(t.Context(), unix.SIGTERM)
		signals.Stop()
		if ctx.Err() != nil {
			t.Fatal("Stop ends the context")
		}
		ctx, signals = NotifyContext(t.Context(), unix.SIGTERM)
		interrupt()
		signals.Stop()
		if ctx.Err() == nil {
			t.Fatal("a signal was forgotten")
		}
		signals.Stop()
	}
}
