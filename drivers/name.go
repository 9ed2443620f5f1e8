package drivers

import "strings"

// MaxName is the longest name of an object in bytes.
const MaxName = 240

// ValidName reports whether name may name an object: components of the characters
// [A-Za-z0-9._+@-] separated by single slashes, none of them empty, "." or "..", none
// beginning with "." (backends keep such names for themselves), MaxName
// bytes at most. All but the last component are the object's group, see [Group].
func ValidName(name string) bool {
	if len(name) == 0 || len(name) > MaxName {
		return false
	}
	start := true
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '@', c == '-':
			start = false
		case c == '.':
			if start {
				return false
			}
		case c == '/':
			if start {
				return false
			}
			start = true
		default:
			return false
		}
	}
	return !start
}

// Group returns the group of a valid name: all before its last slash, "" if it has none.
func Group(name string) string {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ""
	}
	return name[:i]
}
