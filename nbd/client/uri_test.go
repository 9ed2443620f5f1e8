package client_test

import (
	"testing"

	"skerry/nbd/client"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string][3]string{
		"nbd://host":                           {"tcp", "host:10809", ""},
		"nbd://[::1]:99/vm1@snap":              {"tcp", "[::1]:99", "vm1@snap"},
		"nbd://10.0.0.1/a%20b":                 {"tcp", "10.0.0.1:10809", "a b"},
		"nbd+unix:///vm1?socket=/run/s.sock":   {"unix", "/run/s.sock", "vm1"},
		"nbd+unix://?socket=/run/s.sock":       {"unix", "/run/s.sock", ""},
		"nbd+unix:///p/vm1?socket=/run/s.sock": {"unix", "/run/s.sock", "p/vm1"},
	} {
		network, address, export, err := client.ParseURI(uri)
		if got := [3]string{network, address, export}; err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", uri, got, err, want)
		}
	}
	for _, uri := range []string{"", "nbd+unix:///vm1", "http://host/x", "nbds://host", "nbd://h:%"} {
		if _, _, _, err := client.ParseURI(uri); err == nil {
			t.Errorf("%q is taken", uri)
		}
	}
}
