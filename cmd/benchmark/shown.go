package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openShown opens the file that a server shows, for as long as the server runs: to flush it, and so that nothing is opened and closed with each load.
func openShown(ctx context.Context, s *server, path string) (*server, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if s.cmd != nil {
			err = errors.Join(err, s.stop(ctx))
		}
		return nil, err
	}
	s.path, s.file = path, f
	return s, nil
}

// showVolume shows one volume of the pool.
func showVolume(ctx context.Context, b *bed, d disk, n int) (*server, error) {
	s, err := b.show(ctx, d, n, func(dir string) []string { return []string{b.program, "mount", dir, string(d)} })
	if err != nil {
		return nil, err
	}
	return b.controlled(ctx, s, string(d))
}

// showSlow shows the pool with a program that makes its storage slow.
func showSlow(ctx context.Context, b *bed, d disk, n int) (*server, error) {
	return b.show(ctx, d, n, func(dir string) []string { return []string{b.self, "-show-slow", dir, "-dir", b.path("pool")} })
}

// show shows a volume as a file in a directory of its own.
func (b *bed) show(ctx context.Context, d disk, n int, command func(dir string) []string) (*server, error) {
	dir := b.path(fmt.Sprintf("mount%d", n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c := command(dir)
	s, err := b.launch(ctx, func() bool { return mounted(dir) }, c[0], c[1:]...)
	if err != nil {
		return nil, err
	}
	s.after = func(context.Context) error { return os.Remove(dir) }
	return openShown(ctx, s, filepath.Join(dir, string(d)+".raw"))
}

// mounted reports whether something is mounted at a path.
func mounted(path string) bool {
	var at, above unix.Stat_t
	return unix.Stat(path, &at) == nil && unix.Stat(filepath.Dir(path), &above) == nil && at.Dev != above.Dev
}

func showQemu(ctx context.Context, b *bed, d disk, n int) (*server, error) {
	path := b.path(fmt.Sprintf("qemu%d.raw", n))
	if err := os.WriteFile(path, nil, 0o600); err != nil { // what it mounts over
		return nil, err
	}
	s, err := b.launch(ctx, func() bool { return mounted(path) }, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=disk,filename="+b.path("qemu-"+string(d)+".raw"),
		"--export", "type=fuse,id=disk,node-name=disk,writable=on,mountpoint="+path)
	if err != nil {
		return nil, err
	}
	s.after = func(context.Context) error { return os.Remove(path) }
	return openShown(ctx, s, path)
}

func openDirect(ctx context.Context, b *bed, d disk, _ int) (*server, error) {
	return openShown(ctx, &server{}, b.path("plain-"+string(d)+".raw"))
}
