package client

import "slices"

// call makes one request and waits for its end.
func (c *Client) call(kind Kind, flags uint16, off, n int64, data []byte) error {
	op := c.ops.Get().(*Op)
	op.Kind, op.Flags, op.Offset, op.Length, op.Data = kind, flags, off, n, data
	c.Submit(op)
	<-op.wait
	err := op.Err
	op.Data = nil
	c.ops.Put(op)
	return err
}

// Read fills p from off.
func (c *Client) Read(p []byte, off int64) error { return c.ReadFlags(p, off, 0) }

// ReadFlags is Read with flags.
func (c *Client) ReadFlags(p []byte, off int64, flags uint16) error {
	return c.call(Read, flags, off, 0, p)
}

// Write writes p at off.
func (c *Client) Write(p []byte, off int64, flags uint16) error {
	return c.call(Write, flags, off, 0, p)
}

// Flush makes writes durable that were answered.
func (c *Client) Flush() error { return c.call(Flush, 0, 0, 0, nil) }

// Trim discards [off, off+n).
func (c *Client) Trim(off, n int64, flags uint16) error { return c.call(Trim, flags, off, n, nil) }

// Cache asks the server to read [off, off+n) ahead.
func (c *Client) Cache(off, n int64) error { return c.call(Cache, 0, off, n, nil) }

// WriteZeroes zeroes [off, off+n).
func (c *Client) WriteZeroes(off, n int64, flags uint16) error {
	return c.call(WriteZeroes, flags, off, n, nil)
}

// BlockStatus returns the extents from off on in each selected context, in the order of Contexts. They may cover less or more
// than n bytes.
func (c *Client) BlockStatus(off, n int64, flags uint16) ([][]Extent, error) {
	op := c.ops.Get().(*Op)
	op.Kind, op.Flags, op.Offset, op.Length, op.Data = BlockStatus, flags, off, n, nil
	c.Submit(op)
	<-op.wait
	err := op.Err
	var all [][]Extent
	for _, s := range op.Status {
		all = append(all, slices.Clone(s))
	}
	c.ops.Put(op)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Map returns the extents of [off, off+n) in the first context, joined where they look the same.
func (c *Client) Map(off, n int64) ([]Extent, error) {
	const most = 1 << 30
	var all []Extent
	for n > 0 {
		s, err := c.BlockStatus(off, min(n, most), 0)
		if err != nil {
			return nil, err
		}
		for _, e := range s[0] {
			e.Length = uint32(min(int64(e.Length), n))
			off, n = off+int64(e.Length), n-int64(e.Length)
			last := len(all) - 1
			if last >= 0 && all[last].Flags == e.Flags && int64(all[last].Length)+int64(e.Length) < most {
				all[last].Length += e.Length
			} else if e.Length > 0 {
				all = append(all, e)
			}
		}
	}
	return all, nil
}
