package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"

	"skerry/nbd"
	"skerry/nbd/client"
	"skerry/nbd/internal/proto"
	"skerry/nbd/nbdtest"
)

// feed gives the bytes of a client to a fresh server and returns what it answers until it waits for
// more. It fails if the connection does not end or leaves a device open.
func feed(t *testing.T, opts nbd.Options, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		e := nbdtest.NewExports(map[string]nbd.Device{"disk": nbdtest.NewMemory(mib), "ro": nbdtest.NewReadOnly(make([]byte, 5000))})
		s := nbd.NewServer(e, opts)
		p := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), p) }()
		c := p.dial()
		go c.Write(in) // fails if the server has closed
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(&out, c)
			read <- err
		}()
		synctest.Wait()
		must(t, s.Shutdown(t.Context()))
		must(t, <-read)
		must(t, <-served)
		c.Close()
		for _, name := range []string{"disk", "ro"} {
			if e.OpenCount(name) != 0 {
				t.Errorf("export %q stays open", name)
			}
		}
	})
	return out.Bytes()
}

func optionBytes(id uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, proto.MagicOption)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

// FuzzHandshake takes the bytes of a client after its flags.
func FuzzHandshake(f *testing.F) {
	structured := optionBytes(proto.OptStructuredReply, nil)
	f.Add(uint32(3), optionBytes(proto.OptList, nil))
	f.Add(uint32(3), optionBytes(proto.OptAbort, nil))
	f.Add(uint32(0), optionBytes(proto.OptExportName, []byte("disk")))
	f.Add(uint32(2), optionBytes(proto.OptExportName, make([]byte, 5000)))
	f.Add(uint32(3), optionBytes(proto.OptGo, client.InfoData("disk", 0, 1, 2, 3)))
	f.Add(uint32(3), append(structured, optionBytes(proto.OptSetMetaContext, client.MetaContextData("disk", "base:allocation"))...))
	f.Add(uint32(3), append(structured, optionBytes(proto.OptListMetaContext, client.MetaContextData("ro"))...))
	f.Add(uint32(3), append(optionBytes(proto.OptInfo, client.InfoData("ro", 3)), optionBytes(proto.OptGo, client.InfoData("nope"))...))
	f.Add(uint32(7), []byte{})
	f.Add(uint32(1), optionBytes(99, make([]byte, 70000)))
	f.Fuzz(func(t *testing.T, flags uint32, in []byte) {
		out := feed(t, nbd.Options{}, append(binary.BigEndian.AppendUint32(nil, flags), in...))
		if len(out) < 18 || len(out) > 1<<20+20*len(in) {
			t.Errorf("%d bytes in, %d out", len(in), len(out))
		}
	})
}

// FuzzTransmission takes the bytes of a client after a GO.
func FuzzTransmission(f *testing.F) {
	add := func(structured bool, requests ...client.RawRequest) {
		var b []byte
		for _, r := range requests {
			b = client.AppendRequest(b, r)
			if r.Type == proto.CmdWrite {
				b = append(b, make([]byte, min(r.Length, 100<<10))...)
			}
		}
		f.Add(structured, b)
	}
	for _, structured := range []bool{false, true} {
		add(structured, client.RawRequest{Type: proto.CmdRead, Length: 4096}, client.RawRequest{Type: proto.CmdFlush})
		add(structured, client.RawRequest{Type: proto.CmdWrite, Length: 100, Offset: 7, Flags: 1}, client.RawRequest{Type: proto.CmdRead, Length: 9000, Flags: proto.CmdFlagDF})
		add(structured, client.RawRequest{Type: proto.CmdWrite, Length: 100 << 10}, client.RawRequest{Type: proto.CmdTrim, Length: 8192})
		add(structured, client.RawRequest{Type: proto.CmdWriteZeroes, Length: mib, Flags: proto.CmdFlagFastZero}, client.RawRequest{Type: proto.CmdBlockStatus, Length: mib})
		add(structured, client.RawRequest{Type: proto.CmdBlockStatus, Offset: 5, Length: 4096, Flags: proto.CmdFlagReqOne}, client.RawRequest{Type: proto.CmdCache, Length: 1})
		add(structured, client.RawRequest{Type: 77, Length: 1 << 31, Offset: 1 << 63})
	}
	f.Fuzz(func(t *testing.T, structured bool, in []byte) {
		b := binary.BigEndian.AppendUint32(nil, 3)
		if structured {
			b = append(b, optionBytes(proto.OptStructuredReply, nil)...)
			b = append(b, optionBytes(proto.OptSetMetaContext, client.MetaContextData("disk", "base:allocation"))...)
		}
		b = append(b, optionBytes(proto.OptGo, client.InfoData("disk"))...)
		out := feed(t, nbd.Options{MaxRequests: 3}, append(b, in...))
		checkReplies(t, out, structured, in)
	})
}

// checkReplies checks that what came back are whole replies, with as many ends as requests went in.
func checkReplies(t *testing.T, out []byte, structured bool, in []byte) {
	t.Helper()
	from := bytes.NewReader(out[18:])
	options := 1
	if structured {
		options = 3
	}
	if err := skipOptionReplies(from, options); err != nil {
		t.Fatal(err)
	}
	reads := make(map[uint64]uint32) // what a simple reply to a cookie may carry
	requests := 0
	for rest := in; len(rest) >= proto.RequestLen; {
		r, ok := proto.GetRequest(rest)
		if !ok || r.Type == proto.CmdDisc {
			break
		}
		rest = rest[proto.RequestLen:]
		if r.Type == proto.CmdWrite {
			if int64(len(rest)) < int64(r.Length) {
				break
			}
			rest = rest[r.Length:]
		}
		if _, again := reads[r.Cookie]; again {
			return // a client must not do that, so replies cannot be told apart
		}
		reads[r.Cookie] = 0
		if r.Type == proto.CmdRead {
			reads[r.Cookie] = r.Length
		}
		requests++
	}
	ends := 0
	for from.Len() > 0 {
		r, err := client.ReadReply(from)
		if err != nil {
			t.Fatalf("reply %d: %v", ends, err)
		}
		if !r.Structured && r.Errno == 0 {
			if _, err := io.CopyN(io.Discard, from, int64(reads[r.Cookie])); err != nil {
				t.Fatalf("data of reply %d: %v", ends, err)
			}
		}
		if !r.Structured || r.Flags&proto.ChunkFlagDone != 0 {
			ends++
		}
	}
	if ends != requests {
		t.Errorf("%d requests, %d replies", requests, ends)
	}
}

func skipOptionReplies(from io.Reader, options int) error {
	for options > 0 {
		b := make([]byte, proto.OptionReplyHeaderLen)
		if _, err := io.ReadFull(from, b); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, from, int64(binary.BigEndian.Uint32(b[16:]))); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(b[12:]) == proto.RepAck {
			options--
		}
	}
	return nil
}
