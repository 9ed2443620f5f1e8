package mapper

import (
	"fmt"
	"time"

	"skerry/chunk"
)

const (
	nameMagic   = "SKNM"
	trashMagic  = "SKTR"
	readerMagic = "SKRD"
	poolMagic   = "SKPL"
)

// NameRecord points from a volume's name to its id. It counts only if the volume's root names it back.
type NameRecord struct {
	Name   string
	Volume chunk.VolumeID
}

// Encode returns the record as it is stored.
func (r NameRecord) Encode() []byte {
	var e encoder
	e.bytes([]byte(nameMagic))
	e.u16(formatVersion)
	e.id(r.Volume)
	e.text(r.Name)
	return e.seal()
}

// DecodeNameRecord reads what Encode wrote.
func DecodeNameRecord(b []byte) (NameRecord, error) {
	d := unseal(b)
	d.header(nameMagic)
	r := NameRecord{Volume: d.id(), Name: d.text(MaxNameLength)}
	if err := d.end(); err != nil {
		return NameRecord{}, fmt.Errorf("decode name record: %w", err)
	}
	return r, nil
}

// TrashRecord says which volume in the trash had which name, and since when it is there. It counts only if the volume's root is Trashed.
type TrashRecord struct {
	Name   string
	Volume chunk.VolumeID
	Since  time.Time
}

// Encode returns the record as it is stored.
func (r TrashRecord) Encode() []byte {
	var e encoder
	e.bytes([]byte(trashMagic))
	e.u16(formatVersion)
	e.id(r.Volume)
	e.text(r.Name)
	e.u64(uint64(unixNano(r.Since)))
	return e.seal()
}

// DecodeTrashRecord reads what Encode wrote.
func DecodeTrashRecord(b []byte) (TrashRecord, error) {
	d := unseal(b)
	d.header(trashMagic)
	r := TrashRecord{Volume: d.id(), Name: d.text(MaxNameLength), Since: fromUnixNano(int64(d.u64()))}
	if err := d.end(); err != nil {
		return TrashRecord{}, fmt.Errorf("decode trash record: %w", err)
	}
	return r, nil
}

// ReaderRecord says that a process reads a snapshot. The object's name decides; this is for finding the process.
type ReaderRecord struct {
	Volume   chunk.VolumeID
	Snapshot chunk.Serial
	Process  Holder
}

// Encode returns the record as it is stored.
func (r ReaderRecord) Encode() []byte {
	var e encoder
	e.bytes([]byte(readerMagic))
	e.u16(formatVersion)
	e.id(r.Volume)
	e.serial(r.Snapshot)
	e.holder(r.Process)
	return e.seal()
}

// DecodeReaderRecord reads what Encode wrote.
func DecodeReaderRecord(b []byte) (ReaderRecord, error) {
	d := unseal(b)
	d.header(readerMagic)
	r := ReaderRecord{Volume: d.id(), Snapshot: d.serial(), Process: d.holder()}
	if err := d.end(); err != nil {
		return ReaderRecord{}, fmt.Errorf("decode reader record: %w", err)
	}
	return r, nil
}

// PoolRecord says that a place is a pool, and of which format.
type PoolRecord struct {
	ID      [16]byte
	Created time.Time
}

// Encode returns the record as it is stored.
func (r PoolRecord) Encode() []byte {
	var e encoder
	e.bytes([]byte(poolMagic))
	e.u16(formatVersion)
	e.bytes(r.ID[:])
	e.u64(uint64(unixNano(r.Created)))
	return e.seal()
}

// DecodePoolRecord reads what Encode wrote.
func DecodePoolRecord(b []byte) (PoolRecord, error) {
	d := unseal(b)
	d.header(poolMagic)
	r := PoolRecord{ID: d.nonce(), Created: fromUnixNano(int64(d.u64()))}
	if err := d.end(); err != nil {
		return PoolRecord{}, fmt.Errorf("decode pool record: %w", err)
	}
	return r, nil
}
