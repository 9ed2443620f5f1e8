package main

import (
	"encoding/json"
	"reflect"
	"testing"

	"skerry/cmd/internal/control"
)

// shown asks the process that holds a volume where it shows volumes.
func (w *world) shown(volume string) control.Shows {
	w.t.Helper()
	var v control.Volume
	if err := json.Unmarshal([]byte(w.ok("info", volume, "--json")), &v); err != nil || v.Holder == nil {
		w.t.Fatalf("info %s: %+v, %v", volume, v, err)
	}
	p, err := control.NewClient(v.Holder.Socket, 0).Process(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Shows
}

func TestAProcessTellsWhereItShowsVolumes(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.ok("create", "vm2", "--size", "1M")
	s := w.serve(4, "vm1", "vm2", "--nbd", "unix:s", "--nbd", "tcp:0")
	if got, want := w.shown("vm1"), (control.Shows{NBD: s.uris}); !reflect.DeepEqual(got, want) {
		t.Errorf("shows %+v, want %+v", got, want)
	}
	s.stop()

	s = w.serve(1, "--nbd", "unix:s", "--read-only")
	c := w.dial(s, "vm2")
	if got, want := w.shown("vm2"), (control.Shows{NBD: s.uris, ReadOnly: true}); !reflect.DeepEqual(got, want) {
		t.Errorf("shows %+v, want %+v", got, want)
	}
	c.close()
	s.stop()
}
