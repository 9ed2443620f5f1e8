package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

func TestParseAddress(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]address{
		"unix:/run/x.sock":                       {"unix", "/run/x.sock", "", nil},
		"unix:x.sock":                            {"unix", filepath.Join(wd, "x.sock"), "", nil},
		"tcp:10809":                              {"tcp", "127.0.0.1:10809", "", nil},
		"tcp::10809":                             {"tcp", "127.0.0.1:10809", "", nil},
		"tcp:0":                                  {"tcp", "127.0.0.1:0", "", nil},
		"tcp:10.0.0.1:1":                         {"tcp", "10.0.0.1:1", "", nil},
		"tcp:[::1]:1":                            {"tcp", "[::1]:1", "", nil},
		"systemd:":                               {"systemd", "", "", nil},
		"systemd:nbd":                            {"systemd", "nbd", "", nil},
		"nbd+unix:///?socket=/s":                 {"unix", "/s", "", nil},
		"nbd+unix:///vm1?socket=/a/../s":         {"unix", "/s", "vm1", nil},
		"nbd+unix:///vm1@s?socket=/with%20space": {"unix", "/with space", "vm1@s", nil},
		"nbd://host":                             {"tcp", "host:10809", "", nil},
		"nbd://host:1/vm1":                       {"tcp", "host:1", "vm1", nil},
		"nbd:///vm1":                             {"tcp", "127.0.0.1:10809", "vm1", nil},
	} {
		if got, err := parseAddress(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "x", "/x", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp:65536", "tcp:-1", "tcp:010", "udp:1", "nbds://host/x", "nbds+unix:///?socket=/s",
		"nbd+unix:///x", "nbd+unix:///x?socket=s", "nbd+unix://host/x?socket=/s", "nbd+unix:///x?socket=/s&a=b", "nbd://u@host/", "nbd://h/x?a=b",
		"nbd://h/x#f", "nbd:host", "nbd://h:x/", "nbd://%zz/",
	} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}

func TestLoopback(t *testing.T) {
	for where, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "0.0.0.0:1": false, "[::]:1": false, "10.1.1.1:1": false, "host:1": false,
	} {
		if got := (address{network: "tcp", where: where}).loopback(); got != want {
			t.Errorf("%s: %v, want %v", where, got, want)
		}
	}
}

func TestExportURIReadsBack(t *testing.T) {
	for _, name := range []string{"", "vm1", "vm1@s", "a+b"} {
		for _, path := range []string{"/s", "/with space", "/per%cent", "/a&b=c", "/plus+plus", "/q?x#y"} {
			uri := exportURI(&net.UnixAddr{Name: path, Net: "unix"}, name)
			if got, err := parseAddress(uri); err != nil || got != (address{"unix", path, name, nil}) {
				t.Errorf("%q at %q: %q reads as %+v, %v", name, path, uri, got, err)
			}
		}
		uri := exportURI(&net.TCPAddr{IP: net.IPv6loopback, Port: 7}, name)
		if got, err := parseAddress(uri); err != nil || got != (address{"tcp", "[::1]:7", name, nil}) {
			t.Errorf("%q: %q reads as %+v, %v", name, uri, got, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"unix:/x", "tcp:1", "tcp:[::1]:1", "nbd+unix:///a?socket=/b", "nbd://h:1/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		switch a.network {
		case "unix":
			if !filepath.IsAbs(a.where) {
				t.Fatalf("%q: %+v", s, a)
			}
		case "tcp":
			if _, _, err := net.SplitHostPort(a.where); err != nil {
				t.Fatalf("%q: %+v: %v", s, a, err)
			}
		default:
			t.Fatalf("%q: %+v", s, a)
		}
		if _, err := url.Parse(exportURI(&net.UnixAddr{Name: a.where, Net: "unix"}, a.export)); err != nil {
			t.Fatal(err)
		}
	})
}
