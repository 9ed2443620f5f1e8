package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	findTime = 2 * time.Second // for each process
	findMany = 16              // are asked at once
)

// Processes returns the processes that answer on the control sockets in dir, in no particular order. One that does not answer in time is left out.
func Processes(ctx context.Context, dir string) ([]Process, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control sockets: %w", err)
	}
	var (
		mu    sync.Mutex
		found []Process
	)
	g := new(errgroup.Group)
	g.SetLimit(findMany)
	for _, e := range entries {
		if e.Type() != fs.ModeSocket || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, findTime)
			defer cancel()
			p, err := NewClient(filepath.Join(dir, e.Name()), findTime).Process(limited)
			if err != nil {
				return nil // dead, about to end, or no process of this program
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, p)
			return nil
		})
	}
	return found, errors.Join(g.Wait(), ctx.Err())
}
