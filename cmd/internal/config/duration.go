package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"skerry/volume/catalog"
)

// ParseTrash reads a time for which a removed volume stays in the trash: days, as in "7d", or hours, minutes and seconds, as in
// "168h" or "1h30m"; 0: none. It is at most [catalog.MaxTrash].
func ParseTrash(s string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint16
		n, err = parseDays(days)
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d < 0 || d > catalog.MaxTrash {
		return 0, fmt.Errorf("time %q: write for example 7d, 168h or 90m, at most %dd", s, catalog.MaxTrash/(24*time.Hour))
	}
	return d, nil
}

func parseDays(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}
