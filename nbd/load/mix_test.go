package load

import "testing"

func TestParseMix(t *testing.T) {
	for text, want := range map[string]Mix{
		"read":                           {Read: 100},
		"write":                          {Write: 100},
		"trim":                           {Trim: 100},
		"mixed:70":                       {Read: 70, Write: 30},
		"mixed:0":                        {Write: 100},
		"read=70,write=20,zero=5,trim=5": {70, 20, 5, 5},
	} {
		m, err := ParseMix(text)
		if err != nil || m != want {
			t.Errorf("%q: got %+v, %v", text, m, err)
		}
		if again, err := ParseMix(m.String()); err != nil || again != m {
			t.Errorf("%q: %q is %+v, %v", text, m.String(), again, err)
		}
	}
	for _, text := range []string{"", "reads", "mixed", "mixed:", "mixed:101", "mixed:-1", "read=50", "read=50,read=50", "read=100,", "flush=100", "read=3e1"} {
		if m, err := ParseMix(text); err == nil {
			t.Errorf("%q: got %+v", text, m)
		}
	}
}

func TestMixIsKept(t *testing.T) {
	m := Mix{Read: 30, Write: 40, Zero: 10, Trim: 20}
	var got [len(kinds)]int
	for n := range 100 {
		got[m.pick(n)]++
	}
	if got != m.shares() {
		t.Errorf("got %v", got)
	}
}

func TestPermutationHasEachNumberOnce(t *testing.T) {
	rng := random(t)
	for _, n := range []uint64{1, 2, 3, 7, 64, 1000, 65537, 1 + rng.Uint64N(1<<17)} {
		p := newPermutation(n, rng.Uint64())
		seen := make([]bool, n)
		inOrder := uint64(0)
		for i := range n {
			v := p.at(i)
			if v >= n || seen[v] {
				t.Fatalf("%d numbers: number %d is %d, out of range or again", n, i, v)
			}
			seen[v] = true
			if v == i {
				inOrder++
			}
		}
		if n >= 1000 && inOrder > n/20 {
			t.Errorf("%d of %d numbers are in their own place", inOrder, n)
		}
	}
}
