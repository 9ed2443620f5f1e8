package transfer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skerry/volume/hash"
)

func TestHashOfAnImageIsThatOfItsVolume(t *testing.T) {
	data := sparse(9<<20+300, 3)
	clear(data[5<<20:])
	data = append(data, 1, 2, 3)
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	// With holes, which the file system tells.
	for off := 0; off < len(data); off += 4096 {
		if b := data[off:min(off+4096, len(data))]; !isZero(b) {
			if _, err := f.WriteAt(b, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := OpenFile(t.Context(), path, OpenOptions{Format: Raw})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	got, size, err := Hash(t.Context(), img, hash.Options{})
	if err != nil || size != img.VolumeSize() {
		t.Fatal(err)
	}
	padded := append(bytes.Clone(data), make([]byte, (512-len(data)%512)%512)...)
	want, err := hash.Of(t.Context(), &disk{data: padded}, hash.Options{})
	if err != nil || got != want {
		t.Errorf("hash %v, want %v, %v", got, want, err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Hash(t.Context(), img, hash.Options{}); err == nil {
		t.Error("an image that was cut short has a hash")
	}
}

func TestHashOfAPipe(t *testing.T) {
	data := sparse(9<<20+300, 4)
	data[len(data)-1] = 1
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := w.Write(data)
		written <- errors.Join(err, w.Close())
	}()
	img, err := OpenStream(t.Context(), r, OpenOptions{Format: Raw})
	if err != nil {
		t.Fatal(err)
	}
	got, size, err := Hash(t.Context(), img, hash.Options{})
	if err != nil {
		t.Fatal(err)
	}
	padded := append(bytes.Clone(data), make([]byte, (512-len(data)%512)%512)...)
	want, err := hash.Of(t.Context(), &disk{data: padded}, hash.Options{})
	if err != nil || got != want || size != int64(len(padded)) {
		t.Errorf("hash %v of %d bytes, want %v, %v", got, size, want, err)
	}
	if err := errors.Join(<-written, img.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}
