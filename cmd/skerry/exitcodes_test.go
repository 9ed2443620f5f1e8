package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"skerry/cmd/internal/failure"
)

func TestExitCodesAreTold(t *testing.T) {
	help := newWorld(t).ok("help", "exit-codes")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range failure.Exits() {
		if want := fmt.Sprintf("%3d  %s\n", e.Code, e.Meaning); !strings.Contains(help, want) {
			t.Errorf("help exit-codes lacks %q", want)
		}
		if want := fmt.Sprintf("| %d | %s |\n", e.Code, e.Meaning); !strings.Contains(string(readme), want) {
			t.Errorf("README.md lacks %q", want)
		}
	}
}

// TestMessagesNameTheNextStep has the errors whose class leaves the next step to them.
func TestMessagesNameTheNextStep(t *testing.T) {
	w := newPool(t)
	w.script(`
		create vm1 --size 1M
		create vm3 --size 1M
		snapshot vm1@a
		clone vm1@a vm2
		export vm1@a out.raw
		10 info vm1 --pool ./none           | init
		10 info vm1 --pool none             | ./none
		10 info none                        | skerry ls
		10 info vm1@none                    | skerry ls vm1
		12 create vm1 --size 1M             | another name skerry rm
		12 snapshot vm1@a                   | another name skerry rm
		12 export vm1@a out.raw             | --force
		13 rm vm1                           | --snapshots
		13 rm vm1@a                         | vm2 remove them first`)
	s := w.serve(1, "vm3", "--nbd", "unix:"+w.path("s"))
	w.fails(13, "process host release", "rm", "vm3")
	w.fails(11, "process host next: snapshots", "serve", "vm3", "--nbd", "unix:"+w.path("t"))
	s.stop()
}
