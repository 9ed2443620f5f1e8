package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Requests of all sizes that are in flight together are answered with their own data.
func TestInteropFioFile(t *testing.T) {
	t.Parallel()
	w := newPool(t)
	w.ok("create", "-q", "vm1", "--size", "64M")
	m := w.mountFiles()
	for _, bs := range []string{"4k", "128k", "1M"} {
		out := w.path("file.json")
		w.tool("fio", "--name=vm", "--filename="+m.path("vm1.raw"), "--ioengine=libaio", "--direct=1", "--iodepth=32", "--bs="+bs,
			"--rw=randwrite", "--size=64M", "--io_size=32M", "--verify=crc32c", "--verify_fatal=1", "--verify_async=2", "--verify_state_save=0",
			"--output-format=json", "--output="+out)
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Jobs []fioJob }
		_, object, _ := strings.Cut(string(text), "{") // warnings may come first
		if err := json.Unmarshal([]byte("{"+object), &r); err != nil || len(r.Jobs) != 1 || r.Jobs[0].Error != 0 || r.Jobs[0].Read.Bytes < 16*mib {
			t.Fatalf("fio: %v\n%s", err, text)
		}
	}
	m.stop()
	w.undamaged()
}
