package kernel_test

import (
	"strings"
	"testing"

	"skerry/nbd/kernel/kerneltest"
)

// TestKilledServerLosesNothing kills the server twice under load. Each block has a checksum and is verified in the end; an I/O error ends the load.
func TestKilledServerLosesNothing(t *testing.T) {
	bed := kerneltest.New(t)
	p := newPool(t, bed, "64M")
	p.serve()
	g := bed.Boot(prelude(bed) + `
		$CTL attach $AT disk 2 pool:disk 3s 300s
		$CTL keep 0 $AT disk 2 pool:disk >keep.log &
		keeper=$!
		until grep -q KEEPING keep.log; do sleep .1; done
		fio --name=load --filename=/dev/nbd0 --size=40M --rw=randwrite --bsrange=4k-64k --blockalign=4k --direct=1 --ioengine=libaio --iodepth=8 \
			--fsync=16 --rate=5M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=4 --thread --minimal >fio.log 2>&1 &
		load=$!
		# from is a number of writes: of those that the device has completed.
		from() { until [ $(awk '{print $5}' /sys/block/nbd0/stat) -ge $1 ]; do kill -0 $load; sleep .1; done; }
		from 200
		step kill
		from 700
		step kill
		wait $load || { cat fio.log; exit 1; }
		cat keep.log
		echo "SUM $(dd if=/dev/nbd0 bs=1M iflag=direct status=none | sha256sum)"
		kill $keeper
		$CTL detach 0
	`)
	for range 2 {
		g.Until("STEP kill")
		p.kill()
		p.serve()
		g.Say("go")
	}
	sum := g.Until("SUM")
	if said := g.End(); strings.Count(said, "REPLACED 2") < 2 {
		t.Error("the connections were not replaced twice")
	}
	p.kill()
	if got := p.sum() + "  -"; got != sum {
		t.Errorf("the host sees %s, the guest %s", got, sum)
	}
	p.sound()
}

// TestDeadServer has a device with one connection whose server is killed: requests wait, and go on with the next server, or end with a forced detach, or
// when the time is over.
func TestDeadServer(t *testing.T) {
	bed := kerneltest.New(t)
	p := newPool(t, bed, "16M")
	p.serve()
	g := bed.Boot(prelude(bed) + `
		READ="dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct status=none"
		waiting() { until grep -q "^State:.D" /proc/$1/status; do kill -0 $1; sleep .1; done; }
		attached() { $CTL look | grep -c Attached:true || true; }

		$CTL attach $AT disk 1 pool:disk 2s 300s
		fails $CTL attach $AT disk 1 pool:disk 0s 300s
		$CTL replace 0 $AT disk 1 pool:disk
		fails $CTL replace 0 $AT disk 1 pool:other
		step kill
		$READ & reader=$!
		waiting $reader
		step serve
		$CTL replace 0 $AT disk 1 pool:disk
		wait $reader
		echo RESUMED

		step kill
		$READ & reader=$!
		waiting $reader
		echo "BEFORE $(attached)"
		$CTL disconnect 0
		fails wait $reader
		echo "AFTER $(attached)"
		step serve
		fails $CTL replace 0 $AT disk 1 pool:disk

		$CTL attach $AT disk 1 pool:disk 2s 1s
		$READ
		step kill
		fails $READ
		echo OVER
		step serve
		$CTL replace 0 $AT disk 1 pool:disk
		$READ
		$CTL detach 0
		fails $CTL disconnect 7
		$CTL disconnect 0
	`)
	for range 3 {
		g.Until("STEP kill")
		p.kill()
		g.Say("go")
		g.Until("STEP serve")
		p.serve()
		g.Say("go")
	}
	said := g.End()
	for _, want := range []string{
		"REPLACED 0", // while the connection lives
		`is not "pool:other"`,
		"RESUMED",
		"BEFORE 1",
		"AFTER 0",
		"OVER",
		"detach /dev/nbd7: nothing is attached",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("not said: %s", want)
		}
	}
	if n := strings.Count(said, "REPLACED 1"); n != 2 {
		t.Errorf("replaced %d times, want 2", n)
	}
	p.stop()
	p.sound()
}
