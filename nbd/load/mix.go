package load

import (
	"fmt"
	"strconv"
	"strings"

	"skerry/nbd/client"
)

// kinds are the requests that a mix may have, in the order of its shares.
var kinds = [...]struct {
	name string
	kind client.Kind
}{
	{"read", client.Read}, {"write", client.Write}, {"zero", client.WriteZeroes}, {"trim", client.Trim},
}

// Indexes of kinds.
const (
	read = iota
	write
	zero
	trim
	flush // has no share: Config.FlushEvery asks for it
	allKinds
)

// Mix says how many of a hundred requests are of each kind. The shares add up to 100.
type Mix struct {
	Read, Write, Zero, Trim int
}

// ParseMix reads read, write, zero, trim, mixed:N (N reads of a hundred requests, else writes), or shares such as
// read=70,write=20,zero=5,trim=5, which must add up to 100.
func ParseMix(s string) (Mix, error) {
	bad := func(why string) (Mix, error) {
		return Mix{}, fmt.Errorf("mix %q: %s; want read, write, zero, trim, mixed:70, or shares of 100 such as read=70,write=25,trim=5", s, why)
	}
	if n, ok := strings.CutPrefix(s, "mixed:"); ok {
		reads, ok := share(n)
		if !ok {
			return bad("no share of reads from 0 to 100")
		}
		return Mix{Read: reads, Write: 100 - reads}, nil
	}
	if !strings.Contains(s, "=") {
		s += "=100"
	}
	var shares [len(kinds)]int
	sum := 0
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		at := -1
		for i, k := range kinds {
			if k.name == name {
				at = i
			}
		}
		n, ok := share(value)
		switch {
		case at < 0:
			return bad("no requests are called " + strconv.Quote(name))
		case !ok || shares[at] > 0:
			return bad("no share from 0 to 100, once, for " + name)
		}
		shares[at] = n
		sum += n
	}
	if sum != 100 {
		return bad("the shares do not add up to 100")
	}
	return Mix{Read: shares[read], Write: shares[write], Zero: shares[zero], Trim: shares[trim]}, nil
}

func share(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return int(n), err == nil && n <= 100
}

// String returns the shares that are not 0, as ParseMix reads them.
func (m Mix) String() string {
	var parts []string
	for i, n := range m.shares() {
		if n == 100 {
			return kinds[i].name
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", kinds[i].name, n))
		}
	}
	return strings.Join(parts, ",")
}

func (m Mix) shares() [len(kinds)]int { return [...]int{m.Read, m.Write, m.Zero, m.Trim} }

// Changes reports whether any request changes data.
func (m Mix) Changes() bool { return m.Read < 100 }

// pick returns the index of the kind that a number from 0 to 99 falls to.
func (m Mix) pick(n int) int {
	for i, share := range m.shares() {
		if n -= share; n < 0 {
			return i
		}
	}
	return read
}
