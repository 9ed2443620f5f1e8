package main

import (
	"strings"
	"testing"

	"skerry/nbd/kernel/kerneltest"
)

// attachPrelude is what the scripts in the guest begin with: a pool of the guest's own, and words for the rest.
func attachPrelude(bed *kerneltest.Bed) string {
	return "S=" + bed.Build("./cmd/skerry") + "\n" + `
		export SKERRY_POOL=/run/pool HOME=/run GOMAXPROCS=1
		modprobe nbd nbds_max=3
		t() { echo "TIME $1 $(cut -d' ' -f1 /proc/uptime)"; }
		die() { echo "FAILED: $*"; $S attached || true; for f in /run/skerry/attach/*.log; do echo "$f:"; cat "$f"; done; exit 1; }
		# fails CODE WORD COMMAND...: it ends with the code and says the word.
		fails() {
			want=$1 word=$2; shift 2; rc=0
			"$@" >/run/out 2>&1 || rc=$?
			cat /run/out
			[ "$rc" = "$want" ] || die "exit code $rc, want $want: $*"
			grep -q -e "$word" /run/out || die "not said: $word: $*"
		}
		# number FIELD: of what attached tells, which is one device.
		number() { $S attached --json | sed -n 's/.*"'$1'": \([0-9]*\).*/\1/p'; }
		# until COMMAND...: another process brings it about.
		until_() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 150 ] || die "never: $*"; sleep .2; done; }
		is() { $S attached | grep -q "$1"; }
		same() { [ "$1" = "$2" ] || die "$1, want $2"; }
		$S init -q
		$S create -q vm1 --size 48M
	`
}

// TestAttachInAGuest takes a volume through the life of a device of a real kernel, with processes that die.
func TestAttachInAGuest(t *testing.T) {
	bed := kerneltest.New(t)
	g := bed.Boot(attachPrelude(bed) + `
		D=$($S attach vm1 --request-timeout 2s 2>/run/said)
		cat /run/said
		grep -q "started a server for vm1, process $(number server_pid);" /run/said || die "no word of the server"
		same "$D $(blockdev --getsize64 $D)" "/dev/nbd0 $((48 << 20))"
		same "$(cat /sys/block/nbd0/queue/max_sectors_kb)" 32768
		same "$($S map vm1 2>/dev/null)" $D
		t attached

		mkfs.ext4 -q -F -O ^has_journal -E nodiscard $D
		mount -t ext4 $D /run/mnt
		$S attached
		is "vm1.*48 MiB.*rw.*connected.*/run/mnt" || die "not listed"
		fails 13 "mounted on /run/mnt" $S detach vm1
		t mounted

		# The server dies under load.
		dd if=/dev/urandom of=/run/data bs=1M count=8 status=none
		dd if=/run/data of=/run/mnt/f bs=64k oflag=direct status=none &
		load=$!
		old=$(number server_pid)
		kill -9 $old
		wait $load || die "the device did not wait"
		until_ is connected
		[ "$(number server_pid)" != $old ] || die "the same server"
		echo 3 >/proc/sys/vm/drop_caches
		cmp /run/data /run/mnt/f || die "lost"
		t restarted

		# The keeper dies, then both: the next attach revives the device.
		kill -9 $(number keeper_pid)
		until_ is unattended
		cmp /run/data /run/mnt/f
		kill -9 $(number server_pid)
		is dead || die "not dead"
		echo 3 >/proc/sys/vm/drop_caches
		cmp /run/data /run/mnt/f &
		reader=$!
		same "$($S attach vm1 2>/dev/null)" $D
		wait $reader || die "lost"
		t revived

		$S resize -q vm1 64M
		until_ [ $(blockdev --getsize64 $D) -ge $((48 << 20)) ]
		n=0; until [ $(blockdev --getsize64 $D) = $((64 << 20)) ]; do n=$((n + 1)); [ $n -lt 100 ] || die "not resized"; sleep .2; done
		resize2fs $D 2>/dev/null
		umount /run/mnt
		$S detach vm1
		same "$($S attached --json)" "[]"
		$S lease show vm1 | grep -q free || die "leased"
		fails 10 "not attached" $S detach vm1
		t detached

		# A snapshot, at a device of choice; and one that is somebody else's.
		$S snapshot -q vm1@s
		same "$($S attach vm1@s --device /dev/nbd2 2>/dev/null)" /dev/nbd2
		fails 1 "" dd if=/dev/zero of=/dev/nbd2 bs=4k count=1 oflag=direct status=none
		mount -t ext4 -o ro,noload /dev/nbd2 /run/mnt
		cmp /run/data /run/mnt/f
		umount /run/mnt
		fails 13 "vm1@s\|of volume" $S attach vm1 --device /dev/nbd2
		$S unmap /dev/nbd2
		t snapshot
		$S check
	`)
	said := g.End()
	if strings.Contains(said, "FAILED") {
		t.Error("a step failed")
	}
}

// TestForcedDetachInAGuest: a server that hangs holds nobody up for ever, and other programs' devices are left alone.
func TestForcedDetachInAGuest(t *testing.T) {
	bed := kerneltest.New(t)
	g := bed.Boot(attachPrelude(bed) + "CTL=" + bed.Build("./nbd/kernel/kerneltest/guestctl") + `
		$S attach vm1 --request-timeout 60s >/dev/null
		dd if=/dev/urandom of=/run/data bs=1M count=1 status=none
		dd if=/run/data of=/dev/nbd0 oflag=direct bs=1M status=none
		P=$(number server_pid)
		kill -STOP $P
		dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct >/run/stuck 2>&1 &
		stuck=$!
		fails 14 "force" $S detach vm1
		fails 0 "may be lost" $S detach vm1 --force
		if wait $stuck; then die "read from a server that is stopped"; fi
		[ ! -e /proc/$P ] || grep -q '^State:.*Z' /proc/$P/status || die "the server lives"
		same "$($S attached --json)" "[]"
		t forced

		# Mounted, it goes when it is unmounted.
		$S attach vm1 >/dev/null 2>&1
		dd if=/dev/nbd0 bs=1M count=1 iflag=direct status=none | cmp - /run/data || die "lost"
		mkfs.ext4 -q -F -E nodiscard /dev/nbd0
		mount -t ext4 /dev/nbd0 /run/mnt
		fails 0 "/run/mnt" $S detach vm1 --force
		is ending || die "not ending"
		fails 13 "in use" $S attach vm1
		umount /run/mnt
		same "$($S attached --json)" "[]"
		t ended

		# A server that is there is used, and left; the keeper in the foreground lets go of the device at its end.
		$S serve vm1 --nbd unix:/run/s --nbd tcp:127.0.0.1:10809 >/run/uri &
		server=$!
		until_ grep -q nbd /run/uri
		$S attach vm1 --foreground >/run/path 2>/run/said &
		keeper=$!
		until_ grep -q /dev/nbd /run/path
		grep -q "connected to the server of vm1 at nbd+unix:///vm1?socket=/run/s" /run/said || die "not that server"
		is "connected" || die "not connected"
		kill $keeper
		wait $keeper || die "the keeper's end: $?"
		same "$($S attached --json)" "[]"
		same "$($S attach 'nbd+unix:///vm1?socket=/run/s' 2>/dev/null)" /dev/nbd0
		dd if=/dev/nbd0 of=/dev/null bs=1M count=1 iflag=direct status=none
		$S detach 'nbd+unix:///vm1?socket=/run/s'
		kill -0 $server
		t uri

		# Another program's device.
		$CTL attach 127.0.0.1:10809 vm1 1 theirs 5s 60s
		fails 13 "nbd0 is not skerry's" $S detach /dev/nbd0
		fails 13 "nbd0: it was attached by\|nbd0: another program" $S attach vm1 --device /dev/nbd0
		$CTL detach 0
		kill $server
		wait $server
		$S check
	`)
	if said := g.End(); strings.Contains(said, "FAILED") {
		t.Error("a step failed")
	}
}
