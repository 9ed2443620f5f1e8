package kernel_test

import (
	"fmt"
	"strconv"
	"testing"

	"skerry/nbd/kernel/kerneltest"
)

const mib = 1 << 20

// TestFileSystems makes a file system on a volume, gives space back, grows both while it is mounted, and compares what guest and host see.
func TestFileSystems(t *testing.T) {
	for _, c := range []struct {
		name, mkfs, check, grow string
		before, after           int64 // size of the volume; xfs wants 300 MiB
	}{
		{"ext4", "mkfs.ext4 -q -F", "e2fsck -f -n", "resize2fs /dev/nbd0", 64 * mib, 100 * mib},
		{"xfs", "mkfs.xfs -q -f", "xfs_repair -n", "xfs_growfs /run/mnt", 300 * mib, 336 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			bed := kerneltest.New(t)
			p := newPool(t, bed, fmt.Sprint(c.before))
			p.serve()
			g := bed.Boot(prelude(bed) + `
				$CTL attach $AT disk 2 pool:disk 20s 60s
				` + c.mkfs + ` /dev/nbd0
				mount -t ` + c.name + ` /dev/nbd0 /run/mnt
				dd if=/dev/urandom of=/run/mnt/kept bs=1M count=4 status=none
				yes skerry | head -c 32M | dd of=/run/mnt/big bs=1M iflag=fullblock conv=fsync status=none
				sha256sum </run/mnt/kept >/run/sum
				sync
				step full
				rm /run/mnt/big
				sync
				fstrim -v /run/mnt
				sync
				step trimmed
				capacity() { echo $(($(stat -f -c '%b * %S' /run/mnt))); }
				before=$(capacity)
				$CTL resize 0 $answer pool:disk
				echo "SIZE $(blockdev --getsize64 /dev/nbd0)"
				` + c.grow + `
				echo "GREW $(($(capacity) - before))"
				dd if=/dev/urandom of=/run/mnt/late bs=1M count=4 conv=fsync status=none
				fails $CTL detach 0
				umount /run/mnt
				echo 3 >/proc/sys/vm/drop_caches
				mount -t ` + c.name + ` /dev/nbd0 /run/mnt
				sha256sum </run/mnt/kept | cmp - /run/sum
				umount /run/mnt
				` + c.check + ` /dev/nbd0
				echo "SUM $(sha256sum </dev/nbd0)"
				$CTL detach 0
			`)
			g.Until("STEP full")
			full := p.used()
			g.Say("go")
			g.Until("STEP trimmed")
			if after := p.used(); full-after < 30*mib {
				t.Errorf("the pool took %d MiB, and takes %d MiB after fstrim", full/mib, after/mib)
			}
			size := strconv.FormatInt(c.after, 10)
			p.run("resize", "-q", "disk", size)
			g.Say(size)
			if got := g.Until("SIZE"); got != size {
				t.Errorf("the device has %s bytes, want %s", got, size)
			}
			if got, err := strconv.ParseInt(g.Until("GREW"), 10, 64); err != nil || got < 30*mib {
				t.Errorf("the file system has %d bytes more: %v", got, err)
			}
			sum := g.Until("SUM")
			g.End()
			p.stop()
			if got := p.sum() + "  -"; got != sum {
				t.Errorf("the host sees %s, the guest %s", got, sum)
			}
			p.sound()
		})
	}
}
