package kernel

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"skerry/nbd/client"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attr returns a netlink attribute as the kernel defines it: length, type, value, padding to 4 bytes.
func attr(typ uint16, value ...[]byte) []byte {
	var all []byte
	for _, v := range value {
		all = append(all, v...)
	}
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(all)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, all...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// nested is NLA_F_NESTED of include/uapi/linux/netlink.h.
const nested = 1 << 15

func TestConnectIsEncodedAsTheKernelReadsIt(t *testing.T) {
	got, err := connectData(Config{
		Index: 3, Size: 1 << 33, BlockSize: 512, Flags: 0x12d,
		RequestTimeout: 1500 * time.Millisecond, DeadTimeout: time.Minute,
		DisconnectOnClose: true, Backend: "vm1",
	}, []uint32{7, 9})
	must(t, err)
	want := join(
		attr(1, u32(3)),
		attr(2, u64(1<<33)),
		attr(3, u64(512)),
		attr(4, u64(2)), // no time-out is shorter than asked for
		attr(8, u64(60)),
		attr(5, u64(0x12d)),
		attr(6, u64(2)),
		attr(10, []byte("vm1\x00")),
		attr(7|nested,
			attr(1|nested, attr(1, u32(7))),
			attr(1|nested, attr(1, u32(9)))),
	)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConnectToAnyDeviceNamesNone(t *testing.T) {
	got, err := connectData(Config{Index: AnyIndex, Size: 4096, BlockSize: 4096, RequestTimeout: time.Second, DestroyOnDisconnect: true}, []uint32{3})
	must(t, err)
	want := join(
		attr(2, u64(4096)), attr(3, u64(4096)), attr(4, u64(1)), attr(8, u64(0)), attr(5, u64(0)), attr(6, u64(1)),
		attr(7|nested, attr(1|nested, attr(1, u32(3)))),
	)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReconfigureNamesOnlyWhatChanges(t *testing.T) {
	got, err := reconfigureData(0, Change{}, nil)
	must(t, err)
	if diff := cmp.Diff(attr(1, u32(0)), got); diff != "" {
		t.Error(diff)
	}
	got, err = reconfigureData(2, Change{Backend: "b", Size: 1 << 20, RequestTimeout: time.Second, DeadTimeout: 2 * time.Second}, []uint32{5})
	must(t, err)
	want := join(
		attr(1, u32(2)), attr(10, []byte("b\x00")), attr(2, u64(1<<20)), attr(4, u64(1)), attr(8, u64(2)),
		attr(7|nested, attr(1|nested, attr(1, u32(5)))),
	)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatusIsRead(t *testing.T) {
	got, err := getStatus(attr(9|nested,
		attr(1|nested, attr(1, u32(0)), attr(2, []byte{1})),
		attr(1|nested, attr(1, u32(12)), attr(2, []byte{0})),
		attr(4, u64(1)), // of a later kernel
	))
	must(t, err)
	if want := map[int]bool{0: true, 12: false}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnswersThatMakeNoSenseAreErrors(t *testing.T) {
	for name, b := range map[string][]byte{
		"half an attribute":    {1, 0, 0},
		"length beyond":        {200, 0, 9, 0, 1, 2, 3, 4},
		"device without index": attr(9|nested, attr(1|nested, attr(2, []byte{1}))),
		"index of two bytes":   attr(9|nested, attr(1|nested, attr(1, []byte{1, 0}), attr(2, []byte{1}))),
		"large index":          attr(9|nested, attr(1|nested, attr(1, u32(1<<31)), attr(2, []byte{1}))),
		"state of four bytes":  attr(9|nested, attr(1|nested, attr(1, u32(1)), attr(2, u32(1)))),
	} {
		if got, err := getStatus(b); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing":      nil,
		"no index":     attr(2, u64(1)),
		"wrong length": attr(1, u64(1)),
		"large index":  attr(1, u32(1<<20)),
	} {
		if got, err := getIndex(b); !errors.Is(err, ErrAnswer) {
			t.Errorf("index, %s: got %v, %v", name, got, err)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(attr(1, u32(3)))
	f.Add(attr(9|nested, attr(1|nested, attr(1, u32(0)), attr(2, []byte{1}))))
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := getIndex(b)
		if err == nil && (index < 0 || index > maxIndex) || err != nil && !errors.Is(err, ErrAnswer) {
			t.Errorf("index %d, %v", index, err)
		}
		all, err := getStatus(b)
		if err != nil && !errors.Is(err, ErrAnswer) {
			t.Error(err)
		}
		for index := range all {
			if index < 0 || index > maxIndex {
				t.Errorf("device %d", index)
			}
		}
	})
}

func TestConfigsThatTheKernelWouldMisunderstandAreRefused(t *testing.T) {
	good, err := ConfigFor(client.Export{Size: 1 << 20, MinBlock: 1, Flags: 1})
	must(t, err)
	if good.Index != AnyIndex || good.BlockSize != 512 || good.RequestTimeout < time.Second || good.DeadTimeout == 0 {
		t.Errorf("for an export: %+v", good)
	}
	for name, spoil := range map[string]func(*Config){
		"index":           func(c *Config) { c.Index = 1 << 20 },
		"negative index":  func(c *Config) { c.Index = -2 },
		"half a sector":   func(c *Config) { c.Size = 1000 },
		"empty":           func(c *Config) { c.Size = 0 },
		"small blocks":    func(c *Config) { c.BlockSize = 256 },
		"large blocks":    func(c *Config) { c.BlockSize = 8192 },
		"odd blocks":      func(c *Config) { c.BlockSize = 1536 },
		"size and blocks": func(c *Config) { c.Size, c.BlockSize = 4096+512, 4096 },
		"no time-out":     func(c *Config) { c.RequestTimeout = 0 },
		"negative time":   func(c *Config) { c.DeadTimeout = -1 },
		"backend":         func(c *Config) { c.Backend = "a\nb" },
		"long backend":    func(c *Config) { c.Backend = strings.Repeat("x", 1025) },
	} {
		bad := good
		spoil(&bad)
		if err := bad.check(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := ConfigFor(client.Export{Size: 1 << 20, MinBlock: 64 << 10}); !errors.Is(err, ErrConfig) {
		t.Errorf("a server with blocks of 64 KiB: %v", err)
	}
	for name, c := range map[string]Change{
		"size": {Size: -512}, "half a sector": {Size: 700}, "time-out": {RequestTimeout: 1}, "dead": {DeadTimeout: -1}, "backend": {Backend: "\t"},
	} {
		if err := c.check(); !errors.Is(err, ErrConfig) {
			t.Errorf("change of %s: got %v", name, err)
		}
	}
}
