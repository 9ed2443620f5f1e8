package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// fioJob is a job as fio's JSON output describes it.
type fioJob struct {
	Error       int
	Read, Write struct {
		Total int64 `json:"total_ios"`
		Bytes int64 `json:"io_bytes"`
	}
}

// fio runs a job with fio's own NBD client, sixteen requests in flight, each block with a checksum that is verified in the end.
func (w *world) fio(uri string, args ...string) fioJob {
	w.t.Helper()
	out := w.path("fio.json")
	w.tool("fio", append([]string{
		"--name=vm", "--ioengine=nbd", "--uri=" + uri, "--iodepth=16", "--fsync=100", "--verify=crc32c", "--verify_fatal=1",
		"--verify_state_save=0", "--output-format=json", "--output=" + out,
	}, args...)...)
	text, err := os.ReadFile(out)
	if err != nil {
		w.t.Fatal(err)
	}
	var r struct{ Jobs []fioJob }
	_, object, _ := strings.Cut(string(text), "{") // warnings may come first
	if err := json.Unmarshal([]byte("{"+object), &r); err != nil || len(r.Jobs) != 1 {
		w.t.Fatalf("fio: %v\n%s", err, text)
	}
	if r.Jobs[0].Error != 0 || r.Jobs[0].Read.Total == 0 {
		w.t.Fatalf("fio: %+v\n%s", r.Jobs[0], text)
	}
	return r.Jobs[0]
}

func TestInteropFio(t *testing.T) {
	w, image := golden(t)
	s := w.serve(1, "vm1", "--nbd", "unix:s")
	for round := range 2 {
		seed := fmt.Sprintf("--randseed=%d", 7+round)
		// Reads and writes of all sizes, by the sector.
		job := w.fio(s.uri("vm1"), seed, "--rw=randrw", "--bsrange=512-64k", "--blockalign=512", "--size=64M", "--number_ios=2000")
		if job.Write.Total < 400 || job.Write.Bytes < 10*mib {
			t.Errorf("fio wrote too little to prove anything: %+v", job)
		}
		// Every block of a part, all of them partly in two 4 KiB blocks: only then do the same random numbers verify it later.
		part := []string{seed, "--rw=randwrite", "--bs=3584", "--offset=5M", "--size=7M"}
		w.fio(s.uri("vm1"), part...)
		s.kill()
		check := w.serve(1, "vm1", "--read-only", "--nbd", "unix:s") // fio counts writes that it does not make
		if job := w.fio(check.uri("vm1"), append(part, "--verify_only")...); job.Read.Bytes < 7*mib {
			t.Errorf("fio verified too little: %+v", job)
		}
		check.stop()
		s = s.again()
	}
	c := w.dial(s, "vm1")
	c.write([]byte("damage"), 7*mib)
	c.close()
	if out := w.toolFails("fio", "--name=vm", "--ioengine=nbd", "--uri="+s.uri("vm1"), "--randseed=8", "--rw=randwrite", "--bs=3584",
		"--offset=5M", "--size=7M", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--verify_only"); !strings.Contains(out, "verify") {
		t.Errorf("fio found no damage: %s", out)
	}
	s.stop()
	w.exported("golden@v1", image)
	w.undamaged()
}
