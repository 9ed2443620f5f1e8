package main

import (
	"strings"
	"testing"

	"skerry/nbd/kernel/kerneltest"
)

// TestAttachInterruptedInAGuest: whenever a signal comes, there is a device with a keeper, or nothing.
func TestAttachInterruptedInAGuest(t *testing.T) {
	bed := kerneltest.New(t)
	g := bed.Boot(attachPrelude(bed) + `
		for after in .2 .6 .9 1.1 1.3 1.6 2; do
			rc=0
			timeout --signal=INT --kill-after=30 $after $S attach vm1 >/run/path 2>/run/said || rc=$?
			[ $rc != 137 ] || die "attach does not end"
			echo "after $after: $rc $(cat /run/path) $(tail -n 1 /run/said)"
			if [ -s /run/path ]; then
				until_ is "vm1.*connected"
				$S detach vm1
			fi
			same "$($S attached --json)" "[]"
			$S lease show vm1 | grep -q free || die "leased"
		done
		t interrupted

		# What the program that attaches has open is not for those that it leaves behind.
		exec 7>/run/lock
		flock -n 7
		$S attach vm1 >/dev/null
		exec 7>&-
		flock -n /run/lock true || die "a lock is held by the processes of a device"
		t files

		# A record that is lost while the keeper lives.
		rm /run/skerry/attach/*.json
		$S detach /dev/nbd0 || die "not detached"
		same "$($S attached --json)" "[]"
		$S lease show vm1 | grep -q free || die "leased"
		$S attach vm1 >/dev/null
		rm /run/skerry/attach/*.json
		$S attach vm1 >/dev/null
		until_ is "vm1.*connected"
		$S detach vm1
		same "$($S attached --json)" "[]"
		t lost
	`)
	if said := g.End(); strings.Contains(said, "FAILED") {
		t.Error("a step failed")
	}
}
