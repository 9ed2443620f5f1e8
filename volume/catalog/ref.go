package catalog

import (
	"strings"

	"skerry/drivers"
)

// Ref names a volume, or with Snapshot one of its snapshots.
type Ref struct{ Volume, Snapshot string }

// ParseRef reads "VOLUME" or "VOLUME@SNAPSHOT".
func ParseRef(s string) (Ref, error) {
	volume, snapshot, at := strings.Cut(s, "@")
	r := Ref{Volume: volume, Snapshot: snapshot}
	if !ValidName(volume) || at && !ValidName(snapshot) {
		return Ref{}, tell(drivers.ErrInvalid, "%q is no name: want VOLUME or VOLUME@SNAPSHOT, %s", s, nameRule)
	}
	return r, nil
}

// String returns what ParseRef reads.
func (r Ref) String() string {
	if r.Snapshot == "" {
		return r.Volume
	}
	return r.Volume + "@" + r.Snapshot
}

// thing returns the name with the word for what it names.
func (r Ref) thing() string {
	if r.Snapshot == "" {
		return "volume " + r.Volume
	}
	return "snapshot " + r.String()
}

// MaxName is the longest name of a volume or a snapshot in bytes.
const MaxName = 127

const nameRule = "each of letters, digits and ._+-, beginning with a letter or a digit, at most 127 characters"

// ValidName reports whether s may name a volume or a snapshot: [A-Za-z0-9][A-Za-z0-9._+-]{0,126}.
func ValidName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '+', c == '-':
			if i == 0 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func checkName(s string) error {
	if !ValidName(s) {
		return tell(drivers.ErrInvalid, "%q is no name: want %s", s, nameRule)
	}
	return nil
}
