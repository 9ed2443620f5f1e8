package mem

import "maps"

const (
	pageSize  = 4 << 10
	leafPages = 256
	leafSize  = leafPages * pageSize
)

type page [pageSize]byte

// token says who may change a leaf.
type token struct{ _ byte }

type leaf struct {
	own   *token
	owned [leafPages / 64]uint64 // pages that only this leaf holds
	pages [leafPages]*page
}

// content is the bytes of an object.
type content struct {
	own    *token
	leaves map[int64]*leaf
	size   int64
	pages  int64 // that are not absent
}

func newContent() content { return content{own: new(token), leaves: map[int64]*leaf{}} }

// snapshot returns a copy. Both share all pages until one is changed.
func (c *content) snapshot() content {
	c.own = new(token)
	return content{own: new(token), leaves: maps.Clone(c.leaves), size: c.size, pages: c.pages}
}

// each calls fn for the parts of [off, off+n) in single pages: the page's number, the part's start in
// the page, and its start and end in the range.
func each(off, n int64, fn func(number int64, in int, from, to int64)) {
	for at := int64(0); at < n; {
		in := (off + at) % pageSize
		k := min(n-at, pageSize-in)
		fn((off+at)/pageSize, int(in), at, at+k)
		at += k
	}
}

func (c *content) page(number int64) *page {
	l := c.leaves[number/leafPages]
	if l == nil {
		return nil
	}
	return l.pages[number%leafPages]
}

// leaf returns the leaf of a page, made and owned.
func (c *content) leaf(number int64) *leaf {
	i := number / leafPages
	l := c.leaves[i]
	switch {
	case l == nil:
		l = &leaf{own: c.own}
		c.leaves[i] = l
	case l.own != c.own:
		l = &leaf{own: c.own, pages: l.pages}
		c.leaves[i] = l
	}
	return l
}

// own returns a page that may be changed, made if absent.
func (c *content) ownPage(number int64) *page {
	l := c.leaf(number)
	i := number % leafPages
	p := l.pages[i]
	if p != nil && l.owned[i/64]&(1<<(i%64)) != 0 {
		return p
	}
	q := new(page)
	if p != nil {
		*q = *p
	} else {
		c.pages++
	}
	l.pages[i] = q
	l.owned[i/64] |= 1 << (i % 64)
	return q
}

// missing returns how many pages of [off, off+n) are absent.
func (c *content) missing(off, n int64) int64 {
	var k int64
	each(off, n, func(number int64, _ int, _, _ int64) {
		if c.page(number) == nil {
			k++
		}
	})
	return k
}

func (c *content) read(p []byte, off int64) {
	for len(p) > 0 {
		in := off % pageSize
		k := min(len(p), int(pageSize-in))
		if q := c.page(off / pageSize); q == nil {
			clear(p[:k])
		} else {
			copy(p[:k], q[in:])
		}
		p, off = p[k:], off+int64(k)
	}
}

func (c *content) write(p []byte, off int64) {
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		in := off % pageSize
		k := copy(c.ownPage(off / pageSize)[in:], p)
		p, off = p[k:], off+int64(k)
	}
}

// punch zeroes [off, off+n) and frees its whole pages.
func (c *content) punch(off, n int64) {
	each(off, n, func(number int64, in int, from, to int64) {
		if c.page(number) == nil {
			return
		}
		if k := int(to - from); k < pageSize {
			clear(c.ownPage(number)[in : in+k])
			return
		}
		l := c.leaf(number)
		i := number % leafPages
		l.pages[i] = nil
		l.owned[i/64] &^= 1 << (i % 64)
		c.pages--
	})
}

// allocate takes the pages of [off, off+n).
func (c *content) allocate(off, n int64) {
	c.size = max(c.size, off+n)
	each(off, n, func(number int64, _ int, _, _ int64) {
		if c.page(number) == nil {
			c.ownPage(number)
		}
	})
}
