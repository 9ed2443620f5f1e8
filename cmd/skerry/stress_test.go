package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skerry/cmd/internal/failure"
)

// Users run all commands that change volumes, several at once, on the same two pools, and any process may be killed at any moment. What a command
// was to do is there or is not, whoever was killed; in the end nothing is damaged, and nothing is left of what was removed.

// picture is a snapshot as the model knows it.
type picture struct {
	name string
	data []byte
}

// disk is a volume as the model knows it. It is never changed, but replaced.
type disk struct {
	data    []byte
	snaps   []picture // the oldest first
	trashed bool
	going   bool // the removal of a snapshot was begun
}

// stress is what all users share.
type stress struct {
	w     *world
	pools [2]string
	seed  uint64
	mu    sync.Mutex
	known map[string][]byte // snapshots that anybody may read, clone and copy, with their content
	went  map[string]int    // how often each command ended how
}

func TestKilledCommandsAreDoneOrNot(t *testing.T) {
	rounds, seed := 1, rand.Uint64()
	if os.Getenv("SKERRY_SOAK") != "" {
		rounds = 100
	}
	if s := os.Getenv("SKERRY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: SKERRY_SEED=%d (what happens at once differs)", seed)
	s := &stress{w: newPool(t), seed: seed, known: map[string][]byte{}, went: map[string]int{}}
	s.pools = [2]string{s.w.pool, s.w.path("other")}
	s.w.ok("init", "-q", "--pool", s.pools[1])
	var users []*stressUser
	for i := range 4 {
		users = append(users, &stressUser{stress: s, id: fmt.Sprintf("u%d", i), rand: rand.New(rand.NewPCG(seed, uint64(i+1))), disks: map[string]*disk{}, pending: map[string]*copying{}})
	}
	for round := range rounds {
		s.round(users, round)
		if t.Failed() {
			break
		}
	}
	for _, what := range slices.Sorted(maps.Keys(s.went)) {
		t.Logf("%4d %s", s.went[what], what)
	}
	if !t.Failed() {
		s.end(users)
	}
}

// round lets all users run commands, beside collections and checks, and looks at everything when they are done.
func (s *stress) round(users []*stressUser, round int) {
	var all, beside sync.WaitGroup
	stop := make(chan struct{})
	for i, pool := range s.pools {
		beside.Go(func() { s.disturb(pool, rand.New(rand.NewPCG(s.seed, uint64(100+2*round+i))), stop) })
	}
	for _, u := range users {
		all.Go(func() {
			for range 12 {
				if s.w.t.Failed() {
					return
				}
				u.one()
			}
		})
	}
	all.Wait()
	close(stop)
	beside.Wait()
	if s.w.t.Failed() {
		return
	}
	for _, pool := range s.pools {
		s.sound(pool)
	}
	for _, u := range users {
		for ref, d := range u.disks {
			u.settle(ref, d)
		}
	}
}

// sound checks that a pool is not damaged.
func (s *stress) sound(pool string) {
	if r := s.w.run(nil, "check", "--pool", pool); r.code != 0 || strings.Contains(r.stdout, "damage") {
		s.w.t.Errorf("check: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// disturb runs what looks at a whole pool, until stop is closed.
func (s *stress) disturb(pool string, r *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		args := [][]string{{"gc", "-q"}, {"gc", "-q"}, {"gc", "-q"}, {"check"}, {"check", "--repair"}, {"scrub", "-q"}, {"du"}, {"tree"}, {"ls"}, {"ls", "--trash"}}[r.IntN(10)]
		res := s.killable(r, 4, append(args, "--pool", pool)...)
		if res.code > 0 {
			s.w.t.Errorf("%v: exit code %d\n%s%s", args, res.code, res.stdout, res.stderr)
		}
	}
}

// killable runs a command, and kills it one time in n.
func (s *stress) killable(r *rand.Rand, n int, args ...string) result {
	var out, errs bytes.Buffer
	c := s.w.command(args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		s.w.t.Error(err)
		return result{code: 1}
	}
	if r.IntN(n) == 0 {
		sig := syscall.SIGKILL
		if r.IntN(4) == 0 {
			sig = syscall.SIGTERM
		}
		kill := time.AfterFunc(time.Duration(r.IntN(120))*time.Millisecond, func() {
			_ = c.Process.Signal(sig) // it may have ended
		})
		defer kill.Stop()
	}
	_ = c.Wait() // the exit code says it
	res := result{c.ProcessState.ExitCode(), out.String(), errs.String()}
	if strings.Contains(res.stderr, "DATA RACE") || strings.Contains(res.stderr, "panic:") {
		s.w.t.Errorf("%v: %s", args, res.stderr)
	}
	s.mu.Lock()
	s.went[fmt.Sprintf("%s: %d", args[0], res.code)]++
	s.mu.Unlock()
	if res.code == failure.ExitInterrupted {
		res.code = -1
	}
	return res
}

// end removes everything, after which nothing may be left.
func (s *stress) end(users []*stressUser) {
	for _, u := range users {
		for ref := range u.pending {
			u.giveUp(ref)
		}
	}
	for _, pool := range s.pools {
		s.empty(pool)
	}
	for _, pool := range s.pools {
		s.w.ok("gc", "-q", "--pool", pool)
		out := s.w.ok("check", "--pool", pool)
		if strings.Contains(out, "leak") || strings.Contains(out, "damage") {
			s.w.t.Error(out)
		}
		err := filepath.WalkDir(pool, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path == filepath.Join(pool, "pool") || filepath.Dir(path) == filepath.Join(pool, "reserve") {
				return err
			}
			// A pin whose process was killed before it was registered stays for some minutes.
			if owner := filepath.Dir(filepath.Dir(path)); filepath.Base(filepath.Dir(path)) != "root" || !strings.Contains(out, filepath.Base(owner)) {
				s.w.t.Errorf("%s is left", path)
			}
			return nil
		})
		if err != nil {
			s.w.t.Error(err)
		}
	}
}

// empty removes all volumes of a pool, clones before what they were cloned from.
func (s *stress) empty(pool string) {
	for {
		var live []struct{ Name string }
		var trash []struct{ ID string }
		for args, to := range map[string]any{"ls": &live, "ls --trash": &trash} {
			if err := json.Unmarshal([]byte(s.w.ok(append(strings.Fields(args), "--json", "--pool", pool)...)), to); err != nil {
				s.w.t.Error(err)
			}
		}
		names := []string{}
		for _, v := range live {
			names = append(names, v.Name)
		}
		for _, v := range trash {
			names = append(names, v.ID)
		}
		if len(names) == 0 {
			return
		}
		gone := 0
		var told []string
		for _, name := range names {
			r := s.w.run(nil, "rm", "-q", "--now", "--snapshots", "--pool", pool, name)
			if r.code == 0 {
				gone++
			}
			told = append(told, r.stderr)
		}
		if gone == 0 {
			s.w.t.Errorf("nothing of %v can be removed: %v", names, told)
			return
		}
	}
}
