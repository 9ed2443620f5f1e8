package outbox

// Limits of one system call. A message of up to vecItem buffers and arenaItem bytes of
// heads fits while Full is false.
const (
	vecLen    = 1024 // IOV_MAX
	vecItem   = 160
	arenaLen  = 32 << 10
	arenaItem = 8 << 10
	vecBytes  = 1 << 20
)

// Vec is a list of buffers that is sent as one.
type Vec struct {
	bufs  [][]byte
	arena []byte
	open  bool // the last buffer ends where the arena ends
	bytes int
}

func newVec() *Vec {
	return &Vec{bufs: make([][]byte, 0, vecLen), arena: make([]byte, 0, arenaLen)}
}

// Head returns n bytes at the end of the list for the caller to fill. A message may take 8 KiB of them.
func (v *Vec) Head(n int) []byte {
	at := len(v.arena)
	v.arena = v.arena[:at+n]
	if v.open {
		last := &v.bufs[len(v.bufs)-1]
		*last = (*last)[:len(*last)+n]
	} else {
		v.bufs = append(v.bufs, v.arena[at:at+n:arenaLen])
		v.open = true
	}
	v.bytes += n
	return v.arena[at : at+n : at+n]
}

// Data adds b, which is not copied, to the list. A message may add 64.
func (v *Vec) Data(b []byte) {
	if len(b) == 0 {
		return
	}
	v.bufs = append(v.bufs, b)
	v.open = false
	v.bytes += len(b)
}

func (v *Vec) full() bool {
	return len(v.bufs)+vecItem > vecLen || len(v.arena)+arenaItem > arenaLen || v.bytes >= vecBytes
}

func (v *Vec) reset() {
	clear(v.bufs)
	v.bufs, v.arena, v.open, v.bytes = v.bufs[:0], v.arena[:0], false, 0
}
