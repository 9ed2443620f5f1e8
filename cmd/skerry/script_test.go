package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// script runs commands, one a line: "[CODE] ARGS [| WORDS]". The code is 0 if it is left out. Of a command that fails all WORDS must be
// on stderr, of another on stdout.
func (w *world) script(text string) {
	w.t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		command, words, _ := strings.Cut(line, "|")
		args := strings.Fields(command)
		code := 0
		if n, err := strconv.Atoi(args[0]); err == nil {
			code, args = n, args[1:]
		}
		if code != 0 {
			w.fails(code, words, args...)
			continue
		}
		out := w.ok(args...)
		for _, word := range strings.Fields(words) {
			if !strings.Contains(out, word) {
				w.t.Errorf("skerry %s: %q, want it to have %q", strings.Join(args, " "), out, word)
			}
		}
	}
}

func TestPoolsAndVolumes(t *testing.T) {
	newWorld(t).script(`
		10 ls                               | no pool init
		init
		12 init                             | exists
		init --if-missing
		ls
		create vm1 --size 64M
		ls                                  | vm1 MiB live
		info vm1                            | vm1 MiB 4.0
		info vm1 --json                     | "size": 67108864 "chunk_size": 4194304
		create big --size 1.5T --chunk-size 1M
		info big                            | 1.5 TiB 1.0 MiB
		snapshot vm1@a
		ls vm1                              | SNAPSHOT a
		info vm1@a                          | vm1@a
		10 info vm1@b                       | vm1@b not found
		10 info nope                        | nope not found
		10 ls nope                          | nope
		clone vm1@a vm2
		info vm2                            | vm1@a
		13 rm vm1@a                         | clones vm2
		13 rm vm1                           | snapshots a
		rm vm2
		rm vm1@a
		rm vm1
		lease ls                            | big free
		lease show big                      | Fencing: os
		10 lease show vm1                   | vm1`)
}

func TestAliases(t *testing.T) {
	newPool(t).script(`
		new vm1 -s 1M
		snap vm1@a
		list                                | vm1
		df                                  | vm1
		show vm1                            | vm1
		branch vm1@a vm2
		mv vm2 vm3
		revert vm1@a
		delete vm3
		remove vm1 --snapshots
		lease list`)
}

func TestWrongUsage(t *testing.T) {
	w := newPool(t)
	w.ok("create", "vm1", "--size", "1M")
	w.script(`
		2 bogus                             | unknown command bogus --help
		2 creat                             | create
		2 crate                             | mean create
		2 help bogus                        | unknown command bogus
		2 help lease bogus                  | unknown command bogus
		help lease ls                       | skerry lease
		2 create                            | accepts 1 skerry create --help
		2 create x                          | --size
		2 create x --size 20GB              | 20GB 20G
		2 create x --size 0                 | above
		2 create x --size 100               | 512
		2 create x --size 1M --chunk-size 5k
		10 create a/b/c --size 1M           | a/b no pool
		2 create -x                         | -x
		2 create .x --size 1M               | .x
		2 create x@y --size 1M              | snapshot
		2 snapshot vm1                      | vm1@NAME
		2 rollback vm1
		2 rm vm1@a --snapshots
		2 rename vm1 x@y
		2 import x
		1 import - x                        | empty
		2 export vm1 x --format vmdk        | vmdk raw qcow2
		2 export vm1 x --compress zstd      | qcow2
		2 export vm1 x.qcow2 --compress lz4 | lz4 zlib zstd
		2 serve                             | --nbd
		2 serve vm1 --nbd /path             | unix:/path
		2 serve vm1 --nbd tcp:host          | port
		2 lease bogus                       | ls show
		2 ls --quiet --verbose
		2 init /a --pool /b
		2 version extra`)
	w.fails(2, "mount: directory empty", "mount", "")
}

func TestPoolChoice(t *testing.T) {
	w := newWorld(t)
	conf := `pool = "two"
[pools.one]
url = "` + w.path("p1") + `"
[pools.two]
url = "file://` + w.path("p2") + `"
`
	if err := os.Mkdir(w.path("skerry"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("skerry/config.toml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "SKERRY_POOL=")
	w.script(`
		init
		init --pool one
		create one/vm1 --size 1M
		ls --pool one                       | vm1
		10 info vm1
		info one/vm1                        | vm1
		info ` + w.path("p1") + `/vm1       | vm1
		2 clone one/vm1 two/vm2             | one pool
		create --pool two vm2 --size 1M
		ls                                  | vm2
		10 ls --pool three                  | three configur
		10 info three/vm1                   | skerry: pool "three" configur
		1 ls --pool nfs:///mnt              | nfs not supported`)
	if err := os.WriteFile(w.path("bad.toml"), []byte("pol = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "unknown key pol bad.toml mend --config", "ls", "--config", w.path("bad.toml"))
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	w.script(`
		version                             | v-test go1
		--version                           | v-test go1
		--version --json                    | "version": "v-test"
		2 ls --version                      | --version
		version --json                      | "version": "v-test"`)
	if _, err := os.Stat(w.pool); err == nil {
		t.Error("version made a pool")
	}
}

func TestJSONIsForPrograms(t *testing.T) {
	w := newPool(t)
	for _, args := range []string{
		"create vm1 --size 1M", "snapshot vm1@a", "clone vm1@a vm2", "clone vm2 vm3 --size 2M", "rename vm2 vm4", "ls", "ls vm1", "du", "du vm1", "gc", "check", "info vm1",
		"info vm1@a", "rollback vm1@a", "export vm1@a out.raw", "import out.raw vm5", "lease ls", "lease show vm1", "rm vm3", "rm vm4", "init --if-missing", "version",
	} {
		r := w.run(nil, append(strings.Fields(args), "--json")...)
		var v any
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 0 {
			t.Errorf("%s --json: exit code %d, %v\n%s%s", args, r.code, err, r.stdout, r.stderr)
		}
		for line := range strings.Lines(r.stderr) {
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%s --json: %q on stderr: %v", args, line, err)
			}
		}
	}
	r := w.run(nil, "info", "nope", "--json")
	var f struct {
		Error string
		Exit  int
	}
	if err := json.Unmarshal([]byte(r.stderr), &f); err != nil || f.Exit != 10 || !strings.Contains(f.Error, "nope") {
		t.Errorf("%v: %s", err, r.stderr)
	}
}

func TestQuietSaysNothing(t *testing.T) {
	w := newPool(t)
	for _, args := range []string{"create vm1 --size 1M -q", "snapshot vm1@a -q", "rm vm1@a -q"} {
		if r := w.run(nil, strings.Fields(args)...); r.code != 0 || r.stdout != "" || r.stderr != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
