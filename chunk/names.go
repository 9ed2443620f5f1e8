package chunk

import (
	"fmt"
	"strconv"
	"strings"
)

// This file alone builds and parses the names of objects. A name is never used
// twice: all but the fixed ones carry a volume id, a serial or random digits.
//
//	pool                                             the pool record
//	names/<volume name>                              name record
//	trash/<volume id>                                record of a volume in the trash
//	instances/<nonce>                                instance file of a process that holds volumes or reads snapshots
//	reserve/<random>                                 space kept back for metadata
//	v/<volume id>/root/<generation>                  a grant and its root
//	v/<volume id>/page/<generation>.<counter>        map page
//	v/<volume id>/journal/<generation>.<counter>
//	v/<volume id>/snap/<generation>.<counter>        snapshot record
//	v/<volume id>/reg/<snapshot's serial>+<clone id> registration of a clone at a snapshot
//	v/<volume id>/seal/<generation>.<counter>        seal of the snapshot of that serial
//	v/<volume id>/image/<generation>.<counter>       image that the volume is copied from
//	v/<volume id>/reader/<snapshot's serial>+<nonce>.<counter> a process reads a snapshot
//	v/<volume id>/data/<fan>/<index>.<generation>.<counter>
//
// Numbers are hexadecimal without leading zeros, roots' generations have eight digits. fan is the index
// divided by 65,536, so that no directory holds more than some 100,000 objects.
const (
	PoolName      = "pool"
	NamesGroup    = "names"
	TrashGroup    = "trash"
	InstanceGroup = "instances"
	ReserveGroup  = "reserve"
	volumesGroup  = "v"
	fanShift      = 16
)

// NameRecord returns the name of the record of a volume name.
func NameRecord(volume string) string { return NamesGroup + "/" + volume }

// TrashRecord returns the name of the record of a volume in the trash.
func TrashRecord(id VolumeID) string { return TrashGroup + "/" + id.String() }

// ParseTrashRecord returns the volume of such a record's name.
func ParseTrashRecord(name string) (VolumeID, bool) {
	id, err := ParseVolumeID(name[strings.LastIndexByte(name, '/')+1:])
	return id, err == nil
}

// InstanceName returns the name of an instance file.
func InstanceName(nonce string) string { return InstanceGroup + "/" + nonce }

// VolumesGroup returns the group below which all volumes' objects lie.
func VolumesGroup() string { return volumesGroup }

// Group is the part of a volume's objects with one purpose.
type Group string

// The groups of a volume.
const (
	Roots         Group = "root"
	Pages         Group = "page"
	Journals      Group = "journal"
	Snapshots     Group = "snap"
	Seals         Group = "seal"
	Registrations Group = "reg"
	Readers       Group = "reader"
	Images        Group = "image"
	Data          Group = "data"
)

// GroupName returns the name of a volume's group.
func GroupName(id VolumeID, g Group) string {
	return volumesGroup + "/" + id.String() + "/" + string(g)
}

// VolumeGroup returns the name of the group that holds all of a volume's objects.
func VolumeGroup(id VolumeID) string { return volumesGroup + "/" + id.String() }

// RootName returns the name of the root of a grant.
func RootName(id VolumeID, generation uint32) string {
	return fmt.Sprintf("%s/%08x", GroupName(id, Roots), generation)
}

// ParseRootName returns the generation of the last component of a root's name.
func ParseRootName(name string) (uint32, bool) {
	i := strings.LastIndexByte(name, '/')
	g, err := strconv.ParseUint(name[i+1:], 16, 32)
	if err != nil || fmt.Sprintf("%08x", g) != name[i+1:] {
		return 0, false
	}
	return uint32(g), true
}

// SerialName returns the name of a page, a journal, a snapshot record, a seal or an image.
func SerialName(id VolumeID, g Group, s Serial) string {
	return GroupName(id, g) + "/" + s.String()
}

// ParseSerialName returns the serial in the last component of such a name.
func ParseSerialName(name string) (Serial, bool) {
	return parseSerial(name[strings.LastIndexByte(name, '/')+1:])
}

func parseSerial(s string) (Serial, bool) {
	gen, ctr, ok := strings.Cut(s, ".")
	if !ok {
		return 0, false
	}
	g, err1 := strconv.ParseUint(gen, 16, 32)
	c, err2 := strconv.ParseUint(ctr, 16, 32)
	serial := MakeSerial(uint32(g), uint32(c))
	if err1 != nil || err2 != nil || serial.String() != s {
		return 0, false
	}
	return serial, true
}

// RegistrationName returns the name of the registration of a clone at a snapshot.
func RegistrationName(id VolumeID, snap Serial, clone VolumeID) string {
	return GroupName(id, Registrations) + "/" + snap.String() + "+" + clone.String()
}

// ParseRegistrationName returns what the last component of a registration's name says.
func ParseRegistrationName(name string) (snap Serial, clone VolumeID, ok bool) {
	s, c, cut := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], "+")
	snap, ok = parseSerial(s)
	clone, err := ParseVolumeID(c)
	return snap, clone, cut && ok && err == nil
}

// ReaderName returns the name of the record of a process that reads a snapshot: by the nonce of its instance file, for the n-th time that it
// opens one.
func ReaderName(id VolumeID, snap Serial, instance [16]byte, n uint64) string {
	return fmt.Sprintf("%s/%v+%x.%x", GroupName(id, Readers), snap, instance, n)
}

// ParseReaderName returns what the last component of such a name says.
func ParseReaderName(name string) (snap Serial, instance [16]byte, n uint64, ok bool) {
	s, rest, _ := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], "+")
	nonce, count, _ := strings.Cut(rest, ".")
	snap, ok = parseSerial(s)
	id, idErr := ParseVolumeID(nonce)
	n, err := strconv.ParseUint(count, 16, 64)
	return snap, id, n, ok && idErr == nil && err == nil && strconv.FormatUint(n, 16) == count
}

// AppendDataName appends the name of a chunk's data object to b. It allocates nothing if b has room.
func AppendDataName(b []byte, id VolumeID, index uint64, s Serial) []byte {
	b = append(b, volumesGroup...)
	b = append(b, '/')
	b = appendHex(b, id[:])
	b = append(b, "/data/"...)
	b = strconv.AppendUint(b, index>>fanShift, 16)
	b = append(b, '/')
	b = strconv.AppendUint(b, index, 16)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(s.Generation()), 16)
	b = append(b, '.')
	return strconv.AppendUint(b, uint64(s.Counter()), 16)
}

// DataName is AppendDataName as a string.
func DataName(id VolumeID, index uint64, s Serial) string {
	return string(AppendDataName(nil, id, index, s))
}

// DataGroup returns the group of a chunk's data objects.
func DataGroup(id VolumeID, index uint64) string {
	return GroupName(id, Data) + "/" + strconv.FormatUint(index>>fanShift, 16)
}

// ParseDataName returns the chunk and the serial of a data object's name.
func ParseDataName(name string) (index uint64, s Serial, ok bool) {
	last := name[strings.LastIndexByte(name, '/')+1:]
	idx, rest, cut := strings.Cut(last, ".")
	index, err := strconv.ParseUint(idx, 16, 64)
	if !cut || err != nil || strconv.FormatUint(index, 16) != idx {
		return 0, 0, false
	}
	s, ok = parseSerial(rest)
	return index, s, ok
}

// ParseVolume returns the volume and the group of a name below [VolumesGroup].
func ParseVolume(name string) (VolumeID, Group, bool) {
	parts := strings.SplitN(name, "/", 4)
	if len(parts) != 4 || parts[0] != volumesGroup {
		return VolumeID{}, "", false
	}
	id, err := ParseVolumeID(parts[1])
	return id, Group(parts[2]), err == nil
}

func appendHex(b, src []byte) []byte {
	const digits = "0123456789abcdef"
	for _, c := range src {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}
