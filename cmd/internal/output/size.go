package output

import (
	"strconv"

	humanize "github.com/dustin/go-humanize"
)

// Size formats a number of bytes for people, in powers of 1024.
func Size(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}

// Count formats a number with its noun: "1 object", "3 objects".
func Count(n int64, noun string) string {
	s := strconv.FormatInt(n, 10) + " " + noun
	if n != 1 {
		s += "s"
	}
	return s
}
