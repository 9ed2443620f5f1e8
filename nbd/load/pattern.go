package load

import (
	"math/bits"
	"math/rand/v2"
)

// course gives the slots of a range in the order of a pattern. It belongs to one session.
type course struct {
	pattern Pattern
	rng     *rand.Rand
	slots   int64 // of the range
	first   int64 // sequential: of the session's part
	part    int64 // sequential: its length
	at      int64 // sequential: next of the part; shuffle: next of the order
	step    int64 // shuffle: sessions that share the order
	order   permutation
}

// newCourse returns the course of session i of n.
func newCourse(c *Config, i, n int) course {
	slots := c.slots()
	from, to := slots*int64(i)/int64(n), slots*int64(i+1)/int64(n)
	k := course{
		pattern: c.Pattern,
		rng:     rand.New(rand.NewPCG(c.Seed, uint64(i))),
		slots:   slots, first: from, part: to - from,
		step: int64(n), order: newPermutation(uint64(slots), c.Seed),
	}
	if c.Pattern == Shuffle {
		k.at = int64(i)
	}
	return k
}

// next returns the next slot; false at the end.
func (k *course) next() (int64, bool) {
	switch k.pattern {
	case Sequential:
		s := k.first + k.at
		if k.at++; k.at == k.part {
			k.at = 0
		}
		return s, true
	case Shuffle:
		if k.at >= k.slots {
			return 0, false
		}
		s := k.order.at(uint64(k.at))
		k.at += k.step
		return int64(s), true
	}
	return k.rng.Int64N(k.slots), true
}

// permutation is a random order of the numbers below n that takes no memory: a Feistel network over the next even power of
// two, applied again while it leads out of the range.
type permutation struct {
	n    uint64
	half uint // bits of each half
	keys [4]uint64
}

func newPermutation(n, seed uint64) permutation {
	p := permutation{n: n, half: uint(max(bits.Len64(n-1)+1, 2) / 2)}
	rng := rand.New(rand.NewPCG(seed, 1<<63))
	for i := range p.keys {
		p.keys[i] = rng.Uint64()
	}
	return p
}

// at returns number i, below n, of the order.
func (p *permutation) at(i uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := i>>p.half, i&mask
		for _, k := range p.keys {
			l, r = r, l^mix(r^k)&mask
		}
		if i = l<<p.half | r; i < p.n {
			return i
		}
	}
}

// mix is the finalizer of splitmix64: each bit of x changes about half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
