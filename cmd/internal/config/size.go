package config

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// ParseSize reads a size in bytes as people type it: digits with an optional fraction and an optional unit, K, M, G,
// T, P or E, in either case, with or without "iB" behind it. Units are powers of 1024. The size must be
// a whole number of bytes below 8 EiB. Decimal units ("KB", "MB") are refused: they would mean something else.
func ParseSize(s string) (int64, error) {
	bad := func(why string) (int64, error) {
		return 0, fmt.Errorf("size %q: %s; write for example 20G, 512M, 1.5T or a number of bytes", s, why)
	}
	number := strings.TrimRight(s, "KMGTPEkmgtpeiIbB")
	shift, ok := unitShift(s[len(number):])
	if !ok {
		return bad("unknown unit")
	}
	whole, fraction, hasFraction := strings.Cut(number, ".")
	n, ok := digits(whole)
	if !ok {
		return bad("no number")
	}
	if n > math.MaxInt64>>shift {
		return bad("too large")
	}
	n <<= shift
	if hasFraction {
		f, ok := fractionOf(fraction, shift)
		if !ok {
			return bad("not a whole number of bytes")
		}
		if n += f; n > math.MaxInt64 {
			return bad("too large")
		}
	}
	return int64(n), nil
}

// unitShift returns the power of two of a unit.
func unitShift(unit string) (uint, bool) {
	u := strings.ToUpper(unit)
	if u == "" || u == "B" {
		return 0, true
	}
	i := strings.IndexByte("KMGTPE", u[0])
	if i < 0 || u[1:] != "" && u[1:] != "I" && u[1:] != "IB" {
		return 0, false
	}
	return uint(10 * (i + 1)), true
}

// digits reads decimal digits, at least one; false also if the number does not fit an int64.
func digits(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		hi, lo := bits.Mul64(n, 10)
		if n = lo + uint64(c-'0'); hi != 0 || n > math.MaxInt64 {
			return math.MaxUint64, true // too large for any unit
		}
	}
	return n, true
}

// fractionOf returns 0.<s> times two to the power of shift, if that is a whole number.
func fractionOf(s string, shift uint) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	s = strings.TrimRight(s, "0")
	if s == "" {
		return 0, true
	}
	if len(s) > 18 {
		return 0, false // not whole: more binary places than any unit has
	}
	n, ok := digits(s)
	if !ok {
		return 0, false
	}
	scale := uint64(1)
	for range s {
		scale *= 10
	}
	hi, lo := bits.Mul64(n, 1<<shift)
	q, r := bits.Div64(hi, lo, scale) // n is below scale, so hi is too
	return q, r == 0
}
