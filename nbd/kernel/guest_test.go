package kernel_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"skerry/nbd"
	"skerry/nbd/kernel/kerneltest"
	"skerry/nbd/nbdtest"
)

const port = 10809

// address of the server in the guest.
var address = net.JoinHostPort(kerneltest.Host, "10809")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve serves a device as export "disk" in the bed's network, in this process.
func serve(t *testing.T, bed *kerneltest.Bed, d nbd.Device) *nbdtest.Exports {
	t.Helper()
	l := bed.Listen(port)
	exports := nbdtest.NewExports(map[string]nbd.Device{"disk": d})
	s := nbd.NewServer(exports, nbd.Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return exports
}

// prelude is what all scripts begin with: CTL is the program guestctl, step tells the test and waits for it.
func prelude(bed *kerneltest.Bed) string {
	return "modprobe nbd nbds_max=2\nCTL=" + bed.Build("./nbd/kernel/kerneltest/guestctl") + "\nAT=" + address + `
step() { echo "STEP $*"; read answer; }
fails() { if "$@" >out 2>&1; then echo "succeeds: $*"; exit 1; fi; cat out; }
`
}

// TestAttachedDeviceIsWhatTheExportIs also counts flushes: one fsync is at least one at the server.
func TestAttachedDeviceIsWhatTheExportIs(t *testing.T) {
	bed := kerneltest.New(t)
	disk := nbdtest.NewMemory(64 << 20)
	exports := serve(t, bed, disk)
	g := bed.Boot(prelude(bed) + `
		rmmod nbd
		fails $CTL look
		modprobe nbd nbds_max=2
		$CTL attach $AT disk 3 id-1 5s 60s
		$CTL look
		cd /sys/block/nbd0/queue
		echo "QUEUE $(cat write_cache) fua=$(cat fua) $(cat max_sectors_kb) discard=$(cat discard_granularity) rotational=$(cat rotational)"
		cd - >/dev/null
		fails $CTL attach $AT other 1 id 5s 60s
		dd if=/dev/urandom of=/run/data bs=64k count=16 status=none
		dd if=/run/data of=/dev/nbd0 bs=64k oflag=direct status=none
		step flush
		dd if=/dev/zero of=/dev/nbd0 bs=4k seek=4096 count=1 conv=fsync status=none
		step flushed
		cmp -n 1048576 /run/data /dev/nbd0
		cp /run/data data
		exec 9</dev/nbd0
		$CTL detach 0
		exec 9<&-
		$CTL look
		fails $CTL detach 0
	`)
	g.Until("STEP flush")
	if n := exports.OpenCount("disk"); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	before := disk.Flushes()
	g.Say("go")
	g.Until("STEP flushed")
	if n := disk.Flushes() - before; n < 1 {
		t.Errorf("%d flushes for one fsync", n)
	}
	g.Say("go")
	said := g.End()
	for _, want := range []string{
		"run modprobe nbd",
		"{Index:0 Attached:true PID:",
		"Size:67108864 BlockSize:512 ReadOnly:false Connections:1 Backend:id-1} status=true known=true",
		"{Index:1 Attached:false",
		"QUEUE write back fua=1 32768 discard=512 rotational=0",
		"no such export",
		"{Index:0 Attached:false",
		"nothing is attached",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("not said: %s", want)
		}
	}
}
