package mapper

import (
	"math/rand/v2"
	"strings"
	"testing"

	"skerry/chunk"
)

func someSource(rng *rand.Rand) *Source {
	s := &Source{
		ID: someID(rng), Format: []string{"raw", "qcow2"}[rng.IntN(2)], Size: 1 + rng.Int64N(MaxVolumeSize), Chunks: rng.Uint64(),
		Host: someText(rng, maxText), HostID: someID(rng), Boot: someID(rng),
	}
	for range 1 + rng.IntN(3) {
		s.Files = append(s.Files, SourceFile{
			Path: "/" + someText(rng, 200), Device: rng.Uint64(), Inode: rng.Uint64(), Size: rng.Int64(), Modified: someTime(rng), Changed: someTime(rng),
		})
	}
	if len(s.Files) == 1 && rng.IntN(2) == 0 {
		s.Object = chunk.Serial(rng.Uint64())
	}
	return s
}

func mustEncode(s *Source) []byte {
	b, err := s.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func TestSourcesThatDoNotFitAreRefused(t *testing.T) {
	rng := random(t)
	for what, change := range map[string]func(*Source){
		"no id":           func(s *Source) { s.ID = chunk.VolumeID{} },
		"no format":       func(s *Source) { s.Format = "" },
		"long format":     func(s *Source) { s.Format = strings.Repeat("x", maxFormat+1) },
		"no size":         func(s *Source) { s.Size = 0 },
		"large":           func(s *Source) { s.Size = MaxVolumeSize + 1 },
		"no file":         func(s *Source) { s.Files = nil },
		"many files":      func(s *Source) { s.Files, s.Object = make([]SourceFile, MaxSourceFiles+1), 0 },
		"object of two":   func(s *Source) { s.Files, s.Object = append(s.Files[:1:1], s.Files[0]), 7 },
		"relative path":   func(s *Source) { s.Files[0].Path = "a/b" },
		"zero in a path":  func(s *Source) { s.Files[0].Path = "/a\x00b" },
		"negative size":   func(s *Source) { s.Files[0].Size = -1 },
		"path too long":   func(s *Source) { s.Files[0].Path = "/" + strings.Repeat("x", maxSourcePath) },
		"paths too long":  func(s *Source) { s.Object, s.Files = 0, longFiles(3) },
		"long host name":  func(s *Source) { s.Host = strings.Repeat("x", maxText+1) },
		"longest that is": nil,
	} {
		s := someSource(rng)
		if change == nil {
			s.Object, s.Files = 0, longFiles(1)
		} else {
			change(s)
		}
		b, err := s.Encode()
		if (err != nil) != (change != nil) {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
	}
}

// longFiles returns n files with the longest names.
func longFiles(n int) (files []SourceFile) {
	for range n {
		files = append(files, SourceFile{Path: "/" + strings.Repeat("x", maxSourcePath-1)})
	}
	return files
}
