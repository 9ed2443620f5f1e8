package config

import (
	"math"
	"math/big"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "512": 512, "007": 7, "20G": 20 << 30, "512M": 512 << 20, "4k": 4 << 10, "64KiB": 64 << 10,
		"1.5T": 3 << 39, "0.5G": 1 << 29, "2.50g": 5 << 29, "1Gi": 1 << 30, "1P": 1 << 50, "7E": 7 << 60, "10B": 10,
		"1.0": 1, "1.000B": 1, "0.0009765625K": 1, "9223372036854775807": math.MaxInt64, "7.5E": 15 << 59,
		"0.000000000000000000000G": 0,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
}

func TestParseSizeRefusesWhatMayMeanSomethingElse(t *testing.T) {
	for _, s := range []string{
		"", " ", "G", "-1", "+1", "1 G", "1G ", "20GB", "20MB", "1KB", "1e9", "0x10", "1,5G", "1.G", ".5G", ".", "1.1G", "0.3K", "1.5",
		"8E", "9223372036854775808", "99999999999999999999999999", "1GG", "1iB", "1Bi", "1KBi", "١G", "1_000", "1.5.5G", "NaN", "Inf",
		"0.0000000000000000001E", "8388608T",
	} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, got)
		} else if !strings.Contains(err.Error(), "20G") {
			t.Errorf("ParseSize(%q): %v: does not say what to write", s, err)
		}
	}
}

// FuzzParseSize compares with exact arithmetic.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"20G", "1.5T", "1.1G", "0.3K", "7.9999999999999999E", "512", "8E", "1KiB", "1.000000000000000000000K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSize(s)
		if err != nil {
			return
		}
		number := strings.TrimRight(s, "KMGTPEkmgtpeiIbB")
		shift, _ := unitShift(s[len(number):])
		want, ok := new(big.Rat).SetString(number)
		if !ok {
			t.Fatalf("ParseSize(%q) = %d, but %q is no number", s, got, number)
		}
		want.Mul(want, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
		if want.Cmp(new(big.Rat).SetInt64(got)) != 0 {
			t.Fatalf("ParseSize(%q) = %d, want %s", s, got, want)
		}
	})
}
