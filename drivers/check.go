package drivers

import "fmt"

// MaxPrefix is the longest prefix of a [Condition] in bytes.
const MaxPrefix = 512

// CheckReplace checks the arguments of [Backend.Replace], for backends: [ErrInvalid].
func CheckReplace(name string, data []byte, cond Condition) error {
	switch {
	case !ValidName(name):
		return fmt.Errorf("replace %q: %w", name, ErrInvalid)
	case len(data) > MaxSmall:
		return fmt.Errorf("replace %s: %d bytes: %w", name, len(data), ErrInvalid)
	case len(cond.Prefix) > MaxPrefix || cond.Absent && len(cond.Prefix) > 0:
		return fmt.Errorf("replace %s: condition: %w", name, ErrInvalid)
	}
	return nil
}
