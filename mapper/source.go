package mapper

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"skerry/chunk"
)

// Source says what a volume is still being copied from: an image, which shows as the chunks of a volume that does not exist. It is
// what Root.Source holds.
type Source struct {
	ID     chunk.VolumeID // owns the layers that show the image, all under SourceSerial; no object of it is in the pool
	Format string         // of the image
	Size   int64          // bytes of the image's content
	Chunks uint64         // that showed the image at first
	Object chunk.Serial   // of the volume's own object that holds the image file; 0: it lies on a host
	Host   string         // name of the host that has the files, for people
	HostID [16]byte       // identity of that host
	Boot   [16]byte       // boot id of its kernel when the files were looked at
	// Files are the image file and the backing files that it needs. Where Object holds the image, the only one
	// says where that came from.
	Files []SourceFile
}

// SourceFile is a file of a host as it was when a volume was bound to it.
type SourceFile struct {
	Path     string // absolute, without links
	Device   uint64 // number of the file system's device; may differ after a boot
	Inode    uint64
	Size     int64 // bytes
	Modified time.Time
	Changed  time.Time // of the inode: no program can set it
}

// SourceSerial is the serial of all layers that a [Source] owns.
const SourceSerial = chunk.Serial(1<<32 | 1)

// Bounds of a Source, beside that of its encoding, MaxSource.
const (
	MaxSourceFiles = 16
	maxSourcePath  = 4095 // of the operating system
	maxFormat      = 16
	sourceMagic    = "SKSR"
)

// Encode returns the source as a root stores it. It fails if it is not valid or takes more than MaxSource bytes.
func (s *Source) Encode() ([]byte, error) {
	if err := s.valid(); err != nil {
		return nil, err
	}
	var e encoder
	e.bytes([]byte(sourceMagic))
	e.u16(formatVersion)
	e.id(s.ID)
	e.text(s.Format)
	e.u64(uint64(s.Size))
	e.u64(s.Chunks)
	e.serial(s.Object)
	e.text(s.Host)
	e.bytes(s.HostID[:])
	e.bytes(s.Boot[:])
	e.u32(uint32(len(s.Files)))
	for _, f := range s.Files {
		e.text(f.Path)
		e.u64(f.Device)
		e.u64(f.Inode)
		e.u64(uint64(f.Size))
		e.u64(uint64(unixNano(f.Modified)))
		e.u64(uint64(unixNano(f.Changed)))
	}
	b := e.seal()
	if len(b) > MaxSource {
		return nil, fmt.Errorf("the names of the image's files take %d bytes, more than the %d that there is room for", len(b), MaxSource)
	}
	return b, nil
}

// DecodeSource reads what Encode wrote.
func DecodeSource(b []byte) (*Source, error) {
	d := unseal(b)
	d.header(sourceMagic)
	s := &Source{
		ID: d.id(), Format: d.text(maxFormat), Size: int64(d.u64()), Chunks: d.u64(), Object: d.serial(),
		Host: d.text(maxText), HostID: d.nonce(), Boot: d.nonce(),
	}
	for range d.count(MaxSourceFiles, 2+5*8) {
		s.Files = append(s.Files, SourceFile{
			Path: d.text(maxSourcePath), Device: d.u64(), Inode: d.u64(), Size: int64(d.u64()),
			Modified: fromUnixNano(int64(d.u64())), Changed: fromUnixNano(int64(d.u64())),
		})
	}
	err := d.end()
	if err == nil && len(b) > MaxSource {
		err = fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	if err == nil {
		if err = s.valid(); err != nil {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("decode source: %w", err)
	}
	return s, nil
}

func (s *Source) valid() error {
	switch {
	case s.ID.IsZero():
		return errors.New("no id")
	case s.Format == "" || len(s.Format) > maxFormat:
		return fmt.Errorf("format %q", s.Format)
	case s.Size <= 0 || s.Size > MaxVolumeSize:
		return fmt.Errorf("size %d", s.Size)
	case len(s.Host) > maxText:
		return fmt.Errorf("host name of %d bytes", len(s.Host))
	case len(s.Files) == 0 || len(s.Files) > MaxSourceFiles:
		return fmt.Errorf("%d files", len(s.Files))
	case s.Object != 0 && len(s.Files) != 1:
		return fmt.Errorf("an object made of %d files", len(s.Files))
	}
	for _, f := range s.Files {
		if len(f.Path) > maxSourcePath || !path.IsAbs(f.Path) || strings.ContainsRune(f.Path, 0) || f.Size < 0 {
			return fmt.Errorf("file %q of %d bytes", f.Path, f.Size)
		}
	}
	return nil
}
