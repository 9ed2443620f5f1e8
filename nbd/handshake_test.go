package nbd_test

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
)

func twoDisks() map[string]nbd.Device {
	return map[string]nbd.Device{
		"disk":       nbdtest.NewMemory(mib),
		"disk@snap":  nbdtest.NewReadOnly(make([]byte, 2*mib)),
		"other disk": nbdtest.NewMemory(3 * mib),
	}
}

// refused checks that err is an error reply of a type.
func refused(t *testing.T, err error, typ uint32) {
	t.Helper()
	var o *client.OptionError
	if !errors.As(err, &o) || o.Type != typ {
		t.Errorf("got %v, want error reply %d", err, typ&^proto.RepFlagError)
	}
}

// dropped checks that the server closes the connection.
func dropped(t *testing.T, from io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(from); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("read %d bytes, %v; want the connection closed", len(b), err)
	}
}

func TestListShowsAllExports(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	names, err := h.List()
	must(t, err)
	if !slices.Equal(names, []string{"disk", "disk@snap", "other disk"}) {
		t.Errorf("got %q", names)
	}
	must(t, h.Abort())
}

func TestInfoDescribesAnExport(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	const both = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA | proto.FlagCanMultiConn | proto.FlagSendCache
	for _, want := range []client.Export{
		{Name: "disk", Size: mib, Flags: both | proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero},
		{Name: "disk@snap", Size: 2 * mib, Flags: both | proto.FlagReadOnly},
	} {
		want.Description = "the volume " + want.Name
		want.MinBlock, want.PreferredBlock, want.MaxPayload = 1, 4096, 32*mib
		got, err := h.Info(want.Name)
		must(t, err)
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	must(t, h.StructuredReply())
	info, err := h.Info("disk")
	must(t, err)
	if info.Flags&proto.FlagSendDF == 0 {
		t.Error("DF is not offered with structured replies")
	}
	goInfo, err := h.Go("disk")
	must(t, err)
	if goInfo != info {
		t.Errorf("GO says %+v, INFO said %+v", goInfo, info)
	}
}

func TestInfoSendsOnlyWhatWasAskedFor(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	replies, err := h.Option(proto.OptInfo, client.InfoData("disk"))
	must(t, err)
	if len(replies) != 1 || len(replies[0].Data) != 12 {
		t.Errorf("got %v, want NBD_INFO_EXPORT alone", replies)
	}
	_, err = h.Option(proto.OptInfo, client.InfoData("disk", proto.InfoBlockSize, 77, 0xffff))
	must(t, err)
}

func TestUnknownExport(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	for _, name := range []string{"", "dis", "disk@", "diskk"} {
		_, err := h.Info(name)
		refused(t, err, proto.RepErrUnknown)
		_, err = h.Go(name)
		refused(t, err, proto.RepErrUnknown)
	}
	_, err := h.Go("disk")
	must(t, err)
}

func TestExportThatCannotBeOpened(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	h := r.handshake()
	_, err := h.Go("refused")
	refused(t, err, proto.RepErrPolicy)
	if !strings.Contains(err.Error(), nbdtest.ErrRefused.Error()) {
		t.Errorf("the error does not say why: %v", err)
	}
	_, err = h.Go("disk")
	must(t, err)
}

func TestGoOfUnknownExportAfterInfoServesNothing(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	h := r.handshake()
	_, err := h.Info("disk")
	must(t, err)
	_, err = h.Go("missing")
	refused(t, err, proto.RepErrUnknown)
	if n := r.exports.OpenCount("disk"); n != 0 {
		t.Errorf("disk is open %d times", n)
	}
	names, err := h.List() // still haggling
	must(t, err)
	if len(names) != 3 {
		t.Errorf("got %q", names)
	}
}

func TestListWithPayloadIsInvalidAndStaysInStep(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	_, err := h.Option(proto.OptList, []byte("IHAVEOPT and more"))
	refused(t, err, proto.RepErrInvalid)
	names, err := h.List()
	must(t, err)
	if len(names) != 3 {
		t.Errorf("got %q", names)
	}
}

func TestOptionsThatAreNotSupported(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	for _, o := range []uint32{0, 4, proto.OptStartTLS, proto.OptExtendedHeaders, 12, 1 << 31, 0xffffffff} {
		_, err := h.Option(o, []byte("data of it"))
		refused(t, err, proto.RepErrUnsup)
	}
	_, err := h.Go("disk")
	must(t, err)
}

func TestLongOptionIsDroppedAndStaysInStep(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	for _, o := range []uint32{proto.OptInfo, proto.OptGo, proto.OptList, 99} {
		_, err := h.Option(o, make([]byte, 3*mib))
		refused(t, err, proto.RepErrTooBig)
	}
	must(t, h.Abort())
}

func TestLengthsInsideOptionsAreChecked(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	must(t, h.StructuredReply())
	be := binary.BigEndian
	long := strings.Repeat("x", proto.MaxString+1)
	for _, o := range []uint32{proto.OptInfo, proto.OptGo} {
		for _, data := range [][]byte{
			nil, {0}, {0, 0, 0, 4}, append(be.AppendUint32(nil, 4), "disk"...),
			append(be.AppendUint32(nil, 0xffffffff), "disk\x00\x00"...),
			append(be.AppendUint32(nil, 7), "disk\x00\x00"...),
			append(client.InfoData("disk"), 0, 0), client.InfoData("disk", 1)[:11], client.InfoData(long),
		} {
			_, err := h.Option(o, data)
			refused(t, err, proto.RepErrInvalid)
		}
	}
	for _, o := range []uint32{proto.OptListMetaContext, proto.OptSetMetaContext} {
		for _, data := range [][]byte{
			nil, client.MetaContextData("disk", "base:allocation")[:20], append(client.MetaContextData("disk"), 1),
			be.AppendUint32(append(be.AppendUint32(nil, 4), "disk"...), 0xffffffff), client.MetaContextData("disk", long),
		} {
			_, err := h.Option(o, data)
			refused(t, err, proto.RepErrInvalid)
		}
	}
	_, err := h.Option(proto.OptStructuredReply, []byte{1})
	refused(t, err, proto.RepErrInvalid)
	_, err = h.Go("disk")
	must(t, err)
}

func TestExportNameLengthIsBounded(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := binary.BigEndian.AppendUint64(nil, proto.MagicOption)
	b = binary.BigEndian.AppendUint32(b, proto.OptExportName)
	b = binary.BigEndian.AppendUint32(b, 0xffffffff)
	_, err := h.Conn.Write(b)
	must(t, err)
	dropped(t, h.Conn)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestExportNameOfUnknownExportDropsTheConnection(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	must(t, h.Send(proto.OptExportName, []byte("missing")))
	dropped(t, h.Conn)
}

func TestZeroesAfterExportNameUnlessRefused(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	for _, x := range []struct {
		flags uint32
		n     int
	}{{0, 134}, {proto.FlagCFixedNewstyle, 134}, {proto.FlagCNoZeroes, 10}, {proto.FlagCFixedNewstyle | proto.FlagCNoZeroes, 10}} {
		c := r.conn()
		_, err := io.ReadFull(c, make([]byte, 18))
		must(t, err)
		b := binary.BigEndian.AppendUint32(nil, x.flags)
		b = binary.BigEndian.AppendUint64(b, proto.MagicOption)
		b = binary.BigEndian.AppendUint32(b, proto.OptExportName)
		b = append(binary.BigEndian.AppendUint32(b, 4), "disk"...)
		// The disconnect right behind shows where the reply ends.
		_, err = c.Write(client.AppendRequest(b, client.RawRequest{Type: proto.CmdDisc}))
		must(t, err)
		got, err := io.ReadAll(c)
		must(t, err)
		if len(got) != x.n {
			t.Errorf("flags %d: reply of %d bytes, want %d", x.flags, len(got), x.n)
		}
	}
}

func TestUnknownClientFlagsDropTheConnection(t *testing.T) {
	c := serve(t, twoDisks(), nbd.Options{}).conn()
	_, err := io.ReadFull(c, make([]byte, 18))
	must(t, err)
	_, err = c.Write([]byte{0, 0, 0, 7})
	must(t, err)
	dropped(t, c)
}

func TestOptionWithWrongMagicDropsTheConnection(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	_, err := h.Conn.Write(make([]byte, 16))
	must(t, err)
	dropped(t, h.Conn)
}

func TestAbort(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	must(t, r.handshake().Abort())
	h := r.handshake()
	_, err := h.Option(proto.OptAbort, []byte("ignored"))
	must(t, err)
	dropped(t, h.Conn)
}

func TestMetaContexts(t *testing.T) {
	h := serve(t, twoDisks(), nbd.Options{}).handshake()
	_, err := h.ListMetaContexts("disk")
	refused(t, err, proto.RepErrInvalid)
	refused(t, h.SetMetaContexts("disk", "base:allocation"), proto.RepErrInvalid)
	must(t, h.StructuredReply())
	for _, x := range []struct {
		queries   []string
		list, set int
	}{
		{nil, 1, 0}, {[]string{"base:"}, 1, 0}, {[]string{"base:allocation"}, 1, 1}, {[]string{"base:other"}, 0, 0},
		{[]string{"x-none:y", "base:allocation", "base:allocation"}, 1, 1}, {[]string{"no colon", ""}, 0, 0},
	} {
		all, err := h.ListMetaContexts("disk", x.queries...)
		must(t, err)
		must(t, h.SetMetaContexts("disk", x.queries...))
		if len(all) != x.list || len(h.Contexts) != x.set {
			t.Errorf("%q: listed %v, set %v", x.queries, all, h.Contexts)
		}
	}
	refused(t, h.SetMetaContexts("missing", "base:allocation"), proto.RepErrUnknown)
}

func TestBlockStatusNeedsTheContextOfTheSameExport(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	for name, prepare := range map[string]func(h *client.Handshake){
		"none":    func(*client.Handshake) {},
		"other":   func(h *client.Handshake) { must(t, h.SetMetaContexts("other disk", "base:allocation")) },
		"unknown": func(h *client.Handshake) { must(t, h.SetMetaContexts("disk", "x-y:z")) },
		"failed later": func(h *client.Handshake) {
			must(t, h.SetMetaContexts("disk", "base:allocation"))
			refused(t, h.SetMetaContexts("missing", "base:allocation"), proto.RepErrUnknown)
		},
	} {
		h := r.handshake()
		must(t, h.StructuredReply())
		prepare(h)
		e, err := h.Go("disk")
		must(t, err)
		c := h.Client(e)
		if _, err := c.BlockStatus(0, 4096, 0); !errors.Is(err, client.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, c.Close())
	}
}

func TestConnectionsShareNoOptionState(t *testing.T) {
	r := serve(t, twoDisks(), nbd.Options{})
	a, b := r.handshake(), r.handshake()
	must(t, a.StructuredReply())
	must(t, a.SetMetaContexts("disk", "base:allocation"))
	infoB, err := b.Go("disk")
	must(t, err)
	infoA, err := a.Go("other disk")
	must(t, err)
	if infoB.Flags&proto.FlagSendDF != 0 || infoA.Flags&proto.FlagSendDF == 0 || infoA.Size != 3*mib || infoB.Size != mib {
		t.Errorf("a: %+v, b: %+v", infoA, infoB)
	}
	cb := b.Client(infoB) // its client refuses structured replies
	must(t, cb.Read(make([]byte, 4096), 0))
	must(t, cb.Close())
}
