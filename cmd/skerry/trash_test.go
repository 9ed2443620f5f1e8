package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestTrash(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		snapshot vm1@s1
		13 rm vm1 --trash 7d                | snapshots s1
		2 rm vm1 --trash never              | never 7d
		2 rm vm1 --trash 7d --now           | now trash
		2 rm vm1@s1 --trash 7d              | volume
		2 ls vm1 --trash
		rm vm1 --snapshots --trash 7d
		ls --trash                          | vm1 UNTIL
		10 info vm1                         | not found
		10 rm vm1                           | not found trash --now
		10 serve vm1 --nbd unix:x           | not found
		create vm1 --size 2M
		12 restore vm1                      | exists
		restore vm1 old
		ls old                              | s1
		10 restore vm1                      | trash
		rm vm1 --trash 1h
		gc
		rm vm1 --now
		10 restore vm1                      | trash
		check                               | `)
	if out := w.ok("ls", "--trash", "--json"); out != "[]\n" {
		t.Errorf("the trash has %s", out)
	}
}

func TestTrashOfTheConfiguration(t *testing.T) {
	w := newPool(t)
	config := filepath.Join(t.TempDir(), "c.toml")
	text := "[pools.here]\nurl = \"" + w.pool + "\"\ntrash = \"168h\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ok("create", "vm1", "--size", "1M")
	w.ok("rm", "vm1", "--config", config)
	var all []trashView
	if err := json.Unmarshal([]byte(w.ok("ls", "--trash", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Name != "vm1" || all[0].Until.Sub(all[0].Removed).Hours() != 168 {
		t.Fatalf("the trash has %+v", all)
	}
	w.ok("restore", all[0].ID)
	w.ok("rm", "vm1", "--config", config, "--now")
	if out := w.ok("ls", "--trash", "--json"); out != "[]\n" {
		t.Errorf("the trash has %s", out)
	}
}
