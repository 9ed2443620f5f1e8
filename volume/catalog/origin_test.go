package catalog_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume/catalog"
)

func anOrigin() catalog.Origin {
	return catalog.Origin{
		Pool: [16]byte{1, 2}, Volume: chunk.VolumeID{3, 4}, Snapshot: chunk.MakeSerial(5, 6), Pin: chunk.VolumeID{7, 8},
		Hidden: true, All: true, Stage: chunk.MakeSerial(9, 10), Done: 11 << 32,
	}
}

func TestOriginIsStoredAsDocumented(t *testing.T) {
	const want = "534b434f0100" + "01020000000000000000000000000000" + "03040000000000000000000000000000" + "0600000005000000" +
		"07080000000000000000000000000000" + "03" + "0a00000009000000" + "000000000b000000"
	b := anOrigin().Encode()
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := catalog.DecodeOrigin(b); err != nil || got != anOrigin() {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzDecodeOrigin(f *testing.F) {
	f.Add(anOrigin().Encode())
	f.Add([]byte("SKSR"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := catalog.DecodeOrigin(b)
		if err != nil {
			if !errors.Is(err, mapper.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(o.Encode(), b) {
			t.Fatalf("%x became %x", b, o.Encode())
		}
	})
}
