package process

import (
	"os"
	"runtime"
)

// fuseProcessors is how many processors the Go runtime has at least in a process that reads /dev/fuse.
const fuseProcessors = 8

// PrepareFUSE gives the Go runtime processors enough for a process that serves FUSE, unless GOMAXPROCS says how many. It is called before
// the first mount.
//
// A goroutine that waits in a read of /dev/fuse keeps its processor until the runtime takes it away, which is tens of microseconds to
// milliseconds later; on a host with two, one such read holds up half of what could run. See docs/decisions/0039.
func PrepareFUSE() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < fuseProcessors {
		runtime.GOMAXPROCS(fuseProcessors)
	}
}
